"""Where a teacher or reference distribution comes from: cached top-k rows, or hidden states with their head.

Letters: T tokens (rows aligned with the labels, ignored ones included), K cached entries, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


class _TokenRows:
    """Tensors with one row per token, named by `_per_token`; everything else belongs to all tokens."""

    _per_token: tuple[str, ...]

    def select(self, index: Tensor | slice) -> Self:
        """The same source for some of its tokens, e.g. the valid ones or one chunk."""
        return self._map(lambda tensor: tensor[index], self._per_token)

    def to(self, device: torch.device) -> Self:
        """The same source on another device, copied without waiting for it."""
        tensors = tuple(field.name for field in fields(self) if isinstance(getattr(self, field.name), Tensor))  # type: ignore[arg-type]
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), tensors)

    def _map(self, change: Callable[[Tensor], Tensor], names: tuple[str, ...]) -> Self:
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(self, **{name: change(tensor) for name, tensor in given.items()})  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class CachedSlice(_TokenRows):
    """The K most probable entries of a distribution r, and what is known about the rest.

    The mass outside `ids` (the tail) keeps the student's own shape: r(v) = r_tail·π(v)/π_tail, so that K = V is exact
    and a smaller K is unbiased on {ids, tail}. Rows with fewer than K entries fill up with id -1.
    """

    ids: Tensor  # (T, K) int32 or int64, distinct within a row; -1 = unused slot
    logprobs: Tensor  # (T, K) log r(ids), nats; float16 or float32
    label_logprob: Tensor  # (T,) log r(y), nats; used where the label is not among the ids
    entropy: Tensor | None = None  # (T,) H(r), nats
    tail_mass: Tensor | None = None  # (T,) r outside the ids; derived as 1 - sum(exp(logprobs)) when absent

    _per_token = ("ids", "logprobs", "label_logprob", "entropy", "tail_mass")

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[0]


@dataclass(frozen=True, eq=False)
class HiddenHead(_TokenRows):
    """A distribution as last hidden states and the head that reads them: exact, one more GEMM.

    log r = log_softmax(cap(logit_scale·(hidden·weightᵀ + bias))), cap(z) = softcap·tanh(z/softcap).
    """

    hidden: Tensor  # (T, H_r)
    weight: Tensor  # (V, H_r)
    bias: Tensor | None = None  # (V,)
    softcap: float | None = None
    logit_scale: float = 1.0

    _per_token = ("hidden",)

    @property
    def num_tokens(self) -> int:
        return self.hidden.shape[0]


ResidualSource = Tensor | CachedSlice | HiddenHead
"""A dense (tokens, vocab) tensor of log-probabilities, cached top-k rows, or hidden states with their head."""
