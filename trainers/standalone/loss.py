"""Loss of an exported design with torch alone: the frame into which `qtarget export` puts one design.

Hidden states of a language model go in, a sum over tokens comes out; logits exist one chunk of tokens at a time, and
the gradient is taken while they do. The logit gradient of every design is w·(ΣQ·π − Q), with all in Q held still.

Letters: N tokens given, T tokens with a label, V vocabulary, H width.
"""

from __future__ import annotations

import math  # noqa: F401  # some designs use it
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token without a loss."""


@dataclass(frozen=True, eq=False)
class Head:
    """Logits as cap(scale·(hidden·weightᵀ + bias)), cap(x) = c·tanh(x/c) with a soft cap c."""

    hidden: Tensor  # (N, H)
    weight: Tensor  # (V, H)
    bias: Tensor | None = None  # (V,)
    softcap: float | None = None
    logit_scale: float = 1.0

    def logits(self, rows: Tensor | slice) -> Tensor:
        """Logits of some tokens in the precision of the loss: float64 for float64, float32 for all others."""
        logits = torch.nn.functional.linear(self.hidden[rows], self.weight, self.bias)
        logits = (logits if logits.dtype == torch.float64 else logits.float()) * self.logit_scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a design may look at, of T tokens. Nothing here carries a gradient."""

    label_logprobs: Tensor  # (T,) log π(y), nats
    teacher_label_logprobs: Tensor | None = None  # (T,)
    reference_label_logprobs: Tensor | None = None  # (T,)
    old_logprobs: Tensor | None = None  # (T,) log π_old(y)
    critical: Tensor | None = None  # (T,) bool
    sequence_ids: Tensor | None = None  # (T,) int
    weights: Tensor | None = None  # (T,) how often each token counts
    mix: float = 1.0  # share of the family in γ, where a schedule moves it
    labels: Any = None  # (T,)
    logprobs: Any = None  # (T, V) log π
    teacher_logprobs: Any = None  # (T, V)
    reference_logprobs: Any = None  # (T, V)
    previous_logprobs: Any = None  # (T, V)
    real: int = 0  # vocabulary entries that the tokenizer can produce

    @cached_property
    def probs(self) -> Tensor:
        """π, shape (T, V)."""
        probs: Tensor = self.logprobs.exp()
        return probs

    @property
    def label_probs(self) -> Tensor:
        """p = π(y), shape (T,)."""
        return self.label_logprobs.exp()

    def margins(self) -> Tensor:
        """The label's lead over its best rival, shape (T,), nats."""
        best: Tensor = self.logprobs.scatter(-1, self.labels[:, None], -torch.inf).amax(-1)
        return self.label_logprobs - best

    def known_of(self, source: str) -> None:
        """Which entries of a source are tokens of their own: all."""

    def to(self, device: Any) -> Rows:
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


# <design>
from .plain import (  # noqa: E402
    BATCH_SCOPE,
    DENOMINATOR,  # noqa: F401
    NEEDS,
    NEEDS_ROWS,
    REFRESH,  # noqa: F401
    TITLE,
    _design,
    count,
    mix_at,
    trust,
)

# </design>


@dataclass(frozen=True, eq=False)
class LossSum:
    """Sums over the tokens with a label. Divide once, by the denominator of all micro-batches of all ranks."""

    loss_sum: Tensor
    """Nats; differentiable in the student's hidden states and head."""
    denominator: Tensor
    """Number of tokens, or the sum of their weights where the design divides by that."""


def target_loss(
    student: Head,
    labels: Tensor,
    *,
    teacher: Head | None = None,
    reference: Head | None = None,
    previous: Head | None = None,
    teacher_label_logprobs: Tensor | None = None,
    reference_label_logprobs: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    critical: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
    gamma: Tensor | None = None,
    real_vocab: int | None = None,
    progress: float = 0.0,
    max_chunk_bytes: int = 2**28,
) -> LossSum:
    """The target loss of the design on (N,) labels, aligned with the student's hidden states: nothing is shifted.

    Args:
        student: hidden states and head; the loss is differentiable in hidden states, weight and bias.
        teacher, reference, previous: the same tokens in other models, for a design that looks at them (`NEEDS`).
        teacher_label_logprobs, reference_label_logprobs: (N,) log-probability of the label, nats, instead of a head
            where the design looks at no more (not in `NEEDS_ROWS`).
        old_logprobs: (N,) log-probability of the label under the previous policy, nats.
        critical: (N,) bool. sequence_ids: (N,) int, which sequence each token belongs to.
        weights: (N,) how often each token counts, in the loss and in its denominator.
        gamma: (N,) trust, where it was computed over a larger batch than this (`BATCH_SCOPE`).
        real_vocab: entries that the tokenizer can produce; further rows of the head are padding.
        progress: share of the training that is done, for a design whose trust is scheduled.
    """
    models = {"teacher": teacher, "reference": reference, "previous": previous}
    at_label = {"teacher": teacher_label_logprobs, "reference": reference_label_logprobs}
    enough = {name for name, values in at_label.items() if values is not None} - NEEDS_ROWS
    missing = NEEDS & {name for name, head in models.items() if head is None} - enough
    if missing:
        raise ValueError(f"this design ({TITLE}) needs {', '.join(sorted(missing))}; pass it as a `Head`")
    columns = {"old_logprobs": old_logprobs, "critical": critical, "sequence_ids": sequence_ids, "weights": weights}
    columns |= {f"{name}_label_logprobs": values for name, values in at_label.items()} | {"gamma": gamma}
    inputs = _inputs(student, labels, real_vocab=real_vocab, progress=progress, **models, **columns)
    with torch.no_grad():
        return _summed(inputs, inputs.parts(max_chunk_bytes))


def label_scalars(student: Head, labels: Tensor, **given: Any) -> Rows:
    """What trust looks at where its scope is a whole batch: scalars of the tokens with a label."""
    inputs = _inputs(student, labels, **given)
    with torch.no_grad():
        return joined([inputs.scalars(part) for part in inputs.parts(2**28)])


def _inputs(student: Head, labels: Tensor, real_vocab: Any = None, progress: float = 0.0, **given: Any) -> _Inputs:
    valid = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    others = {name: given.pop(name, None) for name in ("teacher", "reference", "previous")}
    heads = {"student": student} | {name: head for name, head in others.items() if head is not None and name in NEEDS}
    columns = {name: None if column is None else column[valid] for name, column in given.items()}
    return _Inputs(heads, labels[valid], valid, columns, mix_at(progress), real_vocab)


def joined(parts: Sequence[Rows]) -> Rows:
    """Scalars of several batches as one."""

    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return torch.cat(values) if isinstance(values[0], Tensor) else values[0]

    return Rows(**{field.name: join(field.name) for field in fields(Rows)})


def _log_softmax(logits: Tensor) -> Tensor:
    """As torch's, but with the sum over the vocabulary taken pairwise: in float32 on a CPU three times as exact."""
    shifted = logits - logits.amax(-1, keepdim=True)
    return shifted - shifted.logsumexp(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class _Inputs:
    """One call, of which only the tokens with a label are left."""

    heads: dict[str, Head]
    """The student, and the models that the design looks at."""
    labels: Tensor  # (T,)
    valid: Tensor  # (T,) their places among the N tokens
    columns: dict[str, Tensor | None]
    mix: float
    real_vocab: int | None

    def parts(self, max_bytes: int) -> list[Tensor]:
        """The numbers of the tokens, chunk by chunk."""
        size = max(1, max_bytes // (8 * self.heads["student"].weight.shape[0]))
        return list(torch.split(torch.arange(len(self.valid), device=self.valid.device), size))

    def logprobs(self, name: str, part: Tensor, width: int) -> Tensor:
        """log-softmax of one model for some tokens; a head of another width is cut to the real vocabulary."""
        logits = self.heads[name].logits(self.valid[part])
        if logits.shape[1] == width:
            return _log_softmax(logits)
        if self.real_vocab is None or logits.shape[1] < self.real_vocab:
            raise ValueError(f"the {name}'s head has {logits.shape[1]} rows, the student's {width}; pass `real_vocab`")
        cut = _log_softmax(logits[:, : self.real_vocab])
        return torch.nn.functional.pad(cut, (0, width - self.real_vocab), value=-torch.inf)

    def rows(self, part: Tensor) -> Rows:
        """Everything a design may look at, of some tokens."""
        width, labels = self.heads["student"].weight.shape[0], self.labels[part]
        found: dict[str, Any] = {
            name: None if column is None else column[part] for name, column in self.columns.items() if name != "gamma"
        }
        for name in self.heads:
            prefix = "" if name == "student" else f"{name}_"
            found[f"{prefix}logprobs"] = logprobs = self.logprobs(name, part, width)
            if name != "previous":
                found[f"{prefix}label_logprobs"] = logprobs.gather(-1, labels[:, None]).squeeze(-1)
        return Rows(**found, labels=labels, mix=self.mix, real=min(self.real_vocab or width, width))

    def scalars(self, part: Tensor) -> Rows:
        """The same without anything as wide as the vocabulary."""
        rows = self.rows(part)
        return replace(rows, logprobs=None, teacher_logprobs=None, reference_logprobs=None, previous_logprobs=None)


def _summed(inputs: _Inputs, parts: list[Tensor]) -> LossSum:
    student, gamma = inputs.heads["student"], inputs.columns["gamma"]
    if BATCH_SCOPE and gamma is None and parts:
        gamma = trust(joined([inputs.scalars(part) for part in parts]))
    exact = torch.float64 if student.hidden.dtype == torch.float64 else torch.float32
    gradients = _Gradients(student, exact)
    value = torch.zeros((), dtype=exact, device=student.hidden.device)
    denominator = torch.zeros_like(value)
    for part in parts:
        rows = inputs.rows(part)
        trusted = trust(rows) if gamma is None else gamma[part].to(exact)
        design = _design(rows, trusted)
        value += design.value.sum()
        denominator += count(trusted, design.weight, rows.weights).sum()
        if gradients.wanted:
            gradients.add(design.logit_gradient(), inputs.valid[part])
    given = [student.hidden, student.weight, *([] if student.bias is None else [student.bias])]
    with torch.enable_grad():
        loss: Tensor = _WithGradients.apply(value, gradients.found(), *given)  # type: ignore[no-untyped-call]
    return LossSum(loss, denominator)


class _Gradients:
    """Gradients with respect to hidden states and head, added up chunk by chunk."""

    def __init__(self, head: Head, exact: torch.dtype) -> None:
        self.head = head
        self.wanted = any(each is not None and each.requires_grad for each in (head.hidden, head.weight, head.bias))
        self.hidden = torch.zeros_like(head.hidden) if self.wanted else None
        self.weight = torch.zeros_like(head.weight, dtype=exact) if head.weight.requires_grad else None
        self.bias = torch.zeros_like(head.bias, dtype=exact) if head.bias is not None else None

    def add(self, gradient: Tensor, rows: Tensor) -> None:
        """`gradient`: (T, V), with respect to the logits of these tokens."""
        if self.head.softcap is not None:
            gradient = gradient * (1 - (self.head.logits(rows) / self.head.softcap).square())
        gradient = gradient * self.head.logit_scale
        narrow = gradient.to(self.head.weight.dtype)
        assert self.hidden is not None
        self.hidden[rows] = (narrow @ self.head.weight).to(self.hidden.dtype)
        if self.weight is not None:
            self.weight += (narrow.T @ self.head.hidden[rows].to(narrow.dtype)).to(self.weight.dtype)
        if self.bias is not None:
            self.bias += gradient.sum(0)

    def found(self) -> tuple[Tensor | None, ...]:
        """In the order hidden states, weight, bias."""
        return self.hidden, self.weight, self.bias


class _WithGradients(torch.autograd.Function):
    """A scalar whose gradients are given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor | None, ...], *given: Tensor) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients[: len(given)], [each.dtype for each in given]
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            None if gradient is None else (grads[0] * gradient).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        return None, None, *scaled
