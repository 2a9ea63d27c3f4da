"""Every target whose tail keeps the student's shape, at the price of cross-entropy.

With Q detached, dL/dz = w·(ΣQ·π − Q). Let T be the entries of a row: the label and, with a cached teacher or reference,
its top-k. If Q(v) is proportional to π(v) outside T, the whole tail acts as one more token (the ghost), so the target
is worked out on C + 1 columns by the same `design` that defines it on V, and

    dL/dz = scale·t + constant·1 off T,    values + constant at T,    scale = w·(ΣQ·π_tail − Q_tail),

with t the tail's shape. Student, student without the label, cached teacher and reference, their geometric means with
exponents that sum to 1 and their mixtures are such targets; the uniform residual is the `constant`; a signed term that
moves cached entries alone (`plateau`) is a part of the `values`.

Letters: R rows of a chunk, C entries, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...spaces.contrast import Contrast
from ...spaces.numerics import product
from ...spaces.residual import Geometric, Mixture, Reference, Residual, Student, Teacher, Uniform
from ...spaces.rows import LabelRows, Rows
from ...spaces.target import Design, TargetSpec, design
from .head import Head, Tail
from .residual_source import ABSENT, CoarseColumns, CoarseSource

SMALLEST_SCALE = 1e-20
"""Row scales below this count as this: values/scale stays finite, and scale·t vanishes beside any gradient."""


def has_row_form(
    spec: TargetSpec, cached: frozenset[str], *, capped: bool, vocab: int, fewest: Callable[[str], int]
) -> bool:
    """Whether the target is exact on C + 1 columns. `cached` names the sources that come as cached rows; `fewest` says
    how many entries each of them is sure to have."""
    if spec.contrast is not None and not _inside_entries(spec.contrast, cached, vocab, fewest):
        return False
    if not spec.residual_acts:
        return True
    residual = spec.residual
    if isinstance(residual, Uniform):
        return not residual.modified and not capped
    return _keeps_shape(residual) and residual.needs <= cached


def _inside_entries(contrast: Contrast, cached: frozenset[str], vocab: int, fewest: Callable[[str], int]) -> bool:
    """Whether a signed term moves cached entries only."""
    wanted = contrast.entries
    if wanted is None or not contrast.needs <= cached:
        return False
    return all(fewest(name) >= min(wanted, vocab) for name in contrast.needs)


def _keeps_shape(residual: Residual) -> bool:
    if residual.truncated or residual.tempered:
        return False
    if isinstance(residual, Geometric):
        return math.isclose(sum(residual.exponents().values()), 1.0, abs_tol=1e-12)
    if isinstance(residual, Mixture):
        return not residual.uniform and not residual.previous
    return isinstance(residual, Student | Teacher | Reference)


Numbered = tuple[int, TargetSpec]
"""A design with its place among those of the call."""


@dataclass(frozen=True)
class Plan:
    """Which designs go by the row form, all on the entries of the same sources, and which need the whole vocabulary."""

    row_form: list[Numbered]
    dense: list[Numbered]

    @classmethod
    def make(
        cls, specs: list[TargetSpec], cached: frozenset[str], *, capped: bool, vocab: int, fewest: Callable[[str], int]
    ) -> Plan:
        plan = cls([], [])
        for numbered in enumerate(specs):
            eligible = has_row_form(numbered[1], cached, capped=capped, vocab=vocab, fewest=fewest)
            (plan.row_form if eligible else plan.dense).append(numbered)
        return plan

    @property
    def sources(self) -> frozenset[str]:
        """The cached sources whose entries the row forms stand on."""
        residuals = [spec.residual.needs for _, spec in self.row_form if spec.residual_acts]
        contrasts = [spec.contrast.needs for _, spec in self.row_form if spec.contrast and spec.contrast_acts]
        return frozenset().union(*residuals, *contrasts)


class CoarseRows:
    """The student and the cached sources on the entries and the ghost, C + 1 columns."""

    def __init__(self, tail: Tail, columns: CoarseColumns) -> None:
        top = tail.top.masked_fill(~columns.used, -torch.inf)
        logits = torch.cat([top, tail.log_mass[:, None]], dim=1)
        self.tail, self.columns = tail, columns
        self.log_normalizer = logits.logsumexp(1)
        self.logprobs = (logits - self.log_normalizer[:, None]).clamp(min=ABSENT)

    @property
    def label_logprobs(self) -> Tensor:
        return self.logprobs[:, 0]

    def label_margins(self) -> Tensor:
        """The label's lead over its best rival, shape (R,), nats."""
        rivals = self.tail.top[:, 1:].masked_fill(~self.columns.used[:, 1:], -torch.inf)
        best = torch.cat([self.tail.highest[:, None], rivals], dim=1).amax(1)
        return self.tail.top[:, 0] - best

    def source_logprobs(self, source: CoarseSource) -> Tensor:
        """log r on the same columns, (R, C + 1): what it does not know shares its tail as the student does."""
        known = torch.cat([source.known, torch.zeros_like(source.known[:, :1])], dim=1)
        outside = self.logprobs.masked_fill(known, -torch.inf)
        # Unused columns are as good as absent on both sides, so they need no mask of their own.
        share = outside - outside.logsumexp(1, keepdim=True) + source.log_tail[:, None]
        return torch.where(known, pad(source.logprobs, (0, 1)), share).clamp(min=ABSENT)

    def tail_entropy(self) -> Tensor:
        """H(t) = −Σ t log t, shape (R,), nats; within its bounds even where no tail is left."""
        return (self.tail.log_mass - self.tail.mean).clamp(0.0, math.log(self.tail.shape.shape[1]))

    def entropy(self) -> Tensor:
        """H(π), shape (R,), nats: of the C + 1 columns, plus the ghost's own."""
        probs = self.logprobs.exp()
        return probs[:, -1] * self.tail_entropy() - (probs * self.logprobs).sum(1)

    def rows(self, scalars: LabelRows) -> Rows:
        """What `design` looks at: the tokens' `scalars` and the distributions."""
        columns: dict[str, Any] = {field.name: getattr(scalars, field.name) for field in fields(LabelRows)}
        columns |= {f"{name}_logprobs": logprobs for name, logprobs in self.sources.items()}
        labels = torch.zeros(len(self.logprobs), dtype=torch.long, device=self.logprobs.device)
        known = {name: pad(source.known, (0, 1)) for name, source in self.columns.sources.items()}
        return Rows(logits=self.logprobs, logprobs=self.logprobs, labels=labels, known=known, **columns)

    @cached_property
    def sources(self) -> dict[str, Tensor]:
        """log r of each source, (R, C + 1)."""
        return {name: self.source_logprobs(source) for name, source in self.columns.sources.items()}


@dataclass(frozen=True, eq=False)
class RowForm:
    """dL/dz of a chunk: scale·t off the entries, `values` at them, `constant` added to all."""

    scale: Tensor  # (R,)
    values: Tensor  # (R, C)
    constant: Tensor | None  # (R,), on the real vocabulary

    def values_before_cap(self, coarse: CoarseRows, head: Head) -> Tensor:
        """`values` with respect to the logits before the head's cap, (R, C)."""
        return self.values if head.softcap is None else self.values * head.cap_slope(coarse.tail.top)

    def fold(self, coarse: CoarseRows, head: Head) -> tuple[Tensor, Tensor]:
        """G (R, V) and s (R,) with s⊙G the gradient before the head's cap; writes the entries into the tail's shape.

        Dividing the entries by the scale is exact to rounding however small the scale is, because every product of a
        row carries the same factor.
        """
        columns, shape = coarse.columns, coarse.tail.shape
        values = self.values_before_cap(coarse, head)
        small = self.scale.abs() < SMALLEST_SCALE
        scale = torch.where(small, SMALLEST_SCALE, self.scale)
        values = torch.where(columns.used, values, values[:, :1])
        shape.scatter_(1, columns.ids, (values / scale[:, None]).to(shape.dtype))
        return shape, scale.masked_fill(small & (values == 0).all(1), 0.0)


def row_form(
    spec: TargetSpec,
    coarse: CoarseRows,
    rows: Rows,  # those of `coarse`
    gamma: Tensor,  # (R,)
    *,
    label_loss: Tensor | None,  # (R,) of a family that sees whole rows, else None
    mean_logit: Tensor | None,  # (R,) over the real vocabulary, for the uniform residual
    real_vocab: int,
) -> tuple[RowForm, Design]:
    """The gradient of one chunk, and the target on its C + 1 columns with the value of the whole vocabulary."""
    if mean_logit is None:
        target = design(spec, rows, gamma, label_loss)
        form = _form(target, None, 0.0)
        if spec.residual_loss == "ce":
            # The ghost stands for the tail: −Σ Q log π over it has an entropy of its own.
            target = _with_value(target, target.q[:, -1] * coarse.tail_entropy())
    else:
        form, target = _uniform_form(spec, coarse, rows, gamma, label_loss, mean_logit, real_vocab)
    return form, target


def _with_value(target: Design, more: Tensor) -> Design:
    return replace(target, value=target.value + product(target.weight, more))


def _uniform_form(
    spec: TargetSpec,
    coarse: CoarseRows,
    rows: Rows,
    gamma: Tensor,
    label_loss: Tensor | None,
    mean_logit: Tensor,
    real_vocab: int,
) -> tuple[RowForm, Design]:
    """γ·δ + (1 − γ)/n·1: the design without a residual, and the rest of its mass evenly on the n real entries."""
    bare = spec.model_copy(update={"residual": Student(), "residual_loss": "kl"})
    target = design(bare, rows, gamma, label_loss)
    rest = target.student
    loss = coarse.log_normalizer - mean_logit
    if spec.residual_loss == "kl":
        loss = loss - math.log(real_vocab)
    target = replace(_with_value(target, product(rest, loss)), student=torch.zeros_like(rest), even=rest)
    return _form(target, -target.weight * rest / real_vocab, -target.weight * rest), target


def _form(target: Design, constant: Tensor | None, constant_sum: Tensor | float) -> RowForm:
    """`constant_sum` is what the constant adds up to over the real vocabulary."""
    gradient = _moved(target)[:, None] * target.rows.probs
    if target.dense is not None:
        gradient = gradient - target.dense
    gradient = target.weight[:, None] * gradient
    scale, values = gradient[:, -1], gradient[:, :-1].clone()
    # The gradient of a row sums to zero. Taken from the rest, the label's keeps its digits where π(y) is nearly 1.
    values[:, 0] = -(scale + values[:, 1:].sum(1) + constant_sum)
    return RowForm(scale=scale, values=values, constant=constant)


def write_gradient(target: Design, gradient: Tensor) -> None:
    """w·(ΣQ·π − Q) on the whole vocabulary, into (R, V): `Design.logit_gradient` in two sweeps and with more digits."""
    rows, weight = target.rows, target.weight
    torch.mul(rows.probs, (weight * _moved(target))[:, None], out=gradient)
    if target.dense is not None:
        gradient.addcmul_(target.dense, weight[:, None], value=-1)
    if target.even is not None:
        gradient[:, : rows.real] -= (weight * target.even / rows.real)[:, None]
    labels = rows.given("labels", "student")
    gradient.scatter_add_(1, labels[:, None], -(weight * target.label)[:, None])


def _moved(target: Design) -> Tensor:
    """ΣQ less the student's own share, (R,): added up, because 1 − (1 − γ) loses the digits of a small γ."""
    moved = target.label if target.dense is None else target.label + target.dense.sum(1)
    return moved if target.even is None else moved + target.even
