"""Where a teacher or reference distribution comes from: cached top-k rows, hidden states with their head, or labels.

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
    fewest: int | None = None
    """Entries that every row has at least; None: not known, and counted where a design asks."""

    _per_token = ("ids", "logprobs", "label_logprob", "entropy", "tail_mass")

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[0]

    def at_least(self) -> int:
        """`fewest`, counted if it is not known, which waits for the device."""
        if self.fewest is not None:
            return self.fewest
        return int((self.ids >= 0).sum(1).amin()) if self.num_tokens else self.ids.shape[1]


@dataclass(frozen=True, eq=False)
class LabelOnly(_TokenRows):
    """A distribution r that is known at the label alone: enough for an anchor there, and two bytes a token on disk."""

    logprobs: Tensor  # (T,) log r(y), nats

    _per_token = ("logprobs",)

    @property
    def num_tokens(self) -> int:
        return self.logprobs.shape[0]


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


ResidualSource = Tensor | CachedSlice | HiddenHead | LabelOnly
"""A dense (tokens, vocab) tensor of log-probabilities, cached top-k rows, hidden states with their head, or the label's
log-probability alone."""

ABSENT = -1e4
"""Log-probability of what is not there: exp(ABSENT) is exactly 0, and unlike -inf it survives products with 0."""


@dataclass(frozen=True, eq=False)
class TopEntries(_TokenRows):
    """A cached distribution made ready for the loss: column 0 is the label, masses sum to 1, C = 1 + K columns."""

    ids: Tensor  # (T, C) int64; unused columns repeat the label
    used: Tensor  # (T, C) bool
    logprobs: Tensor  # (T, C) log r, nats; ABSENT where unused
    log_tail: Tensor  # (T,) log of r outside the used columns

    _per_token = ("ids", "used", "logprobs", "log_tail")


def top_entries(source: CachedSlice, labels: Tensor, dtype: torch.dtype) -> TopEntries:
    """The label and the cached entries of each token, `labels` (T,); log-probabilities in `dtype`, normalised."""
    ids = source.ids.long()
    is_label = ids == labels[:, None]
    kept = (ids >= 0) & ~is_label
    logprobs = source.logprobs.to(dtype)
    label = torch.where(is_label, logprobs, -torch.inf).amax(1)
    outside = torch.isneginf(label)
    label = torch.where(outside, source.label_logprob.to(dtype), label)
    logprobs = torch.cat([label[:, None], torch.where(kept, logprobs, -torch.inf)], dim=1).clamp(min=ABSENT)
    tail = _tail_mass(source, dtype)
    tail = torch.where(outside, tail - label.exp(), tail).clamp(min=0.0)
    log_tail = tail.log().clamp(min=ABSENT)
    total = torch.logaddexp(logprobs.logsumexp(1), log_tail)
    used = torch.cat([torch.ones_like(kept[:, :1]), kept], dim=1)
    return TopEntries(
        ids=torch.where(used, torch.cat([labels[:, None], ids], dim=1), labels[:, None]),
        used=used,
        logprobs=(logprobs - total[:, None]).clamp(min=ABSENT),
        log_tail=(log_tail - total).clamp(min=ABSENT),
    )


def _tail_mass(source: CachedSlice, dtype: torch.dtype) -> Tensor:
    if source.tail_mass is not None:
        return source.tail_mass.to(dtype)
    kept = torch.where(source.ids >= 0, source.logprobs.to(dtype).exp(), 0.0)
    return 1.0 - kept.sum(1)


def widen(entries: TopEntries, student_logprobs: Tensor) -> Tensor:
    """The cached distribution on the whole vocabulary: its tail takes the student's shape. (R, V) in and out, nats."""
    outside = student_logprobs.scatter(1, entries.ids, -torch.inf)
    mass = outside.logsumexp(1, keepdim=True).clamp(min=ABSENT)
    dense = outside.add_(entries.log_tail[:, None] - mass)
    label = entries.logprobs[:, :1]
    return dense.scatter_(1, entries.ids, torch.where(entries.used, entries.logprobs, label))


@dataclass(frozen=True, eq=False)
class CoarseSource(_TokenRows):
    """A cached distribution on the columns of `CoarseColumns`."""

    logprobs: Tensor  # (T, C) log r where known, nats
    known: Tensor  # (T, C) bool; a used column that is not known belongs to the source's tail
    log_tail: Tensor  # (T,)

    _per_token = ("logprobs", "known", "log_tail")


@dataclass(frozen=True, eq=False)
class CoarseColumns:
    """The entries of each row that targets are worked out on: the label, then what any of the sources has cached."""

    ids: Tensor  # (T, C) int64; unused columns repeat the label
    used: Tensor  # (T, C) bool
    sources: dict[str, CoarseSource]

    @classmethod
    def merge(cls, labels: Tensor, sources: dict[str, TopEntries]) -> CoarseColumns:
        """The union of the sources' entries; nothing but the label `labels` (T,) when there is no source."""
        ids = labels[:, None]
        used = torch.ones_like(ids, dtype=torch.bool)
        for source in sources.values():
            more = source.ids[:, 1:]
            new = source.used[:, 1:] & ~_matches(more, ids, used).any(2)
            ids = torch.cat([ids, torch.where(new, more, labels[:, None])], dim=1)
            used = torch.cat([used, new], dim=1)
        return cls(ids, used, {name: _on_columns(source, ids, used) for name, source in sources.items()})

    def select(self, index: slice) -> CoarseColumns:
        """The columns of one chunk."""
        sources = {name: source.select(index) for name, source in self.sources.items()}
        return CoarseColumns(self.ids[index], self.used[index], sources)


def _matches(ids: Tensor, others: Tensor, used: Tensor) -> Tensor:
    """Whether id c equals the used id k of the same row, (T, C, K)."""
    return (ids[:, :, None] == others[:, None, :]) & used[:, None, :]


def _on_columns(source: TopEntries, ids: Tensor, used: Tensor) -> CoarseSource:
    if ids.shape == source.ids.shape:  # the only source: its own columns
        return CoarseSource(source.logprobs, source.used, source.log_tail)
    match = _matches(ids, source.ids, source.used)
    logprobs = torch.where(match, source.logprobs[:, None, :], ABSENT).amax(2)
    return CoarseSource(logprobs, match.any(2) & used, source.log_tail)
