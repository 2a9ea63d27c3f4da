"""The target distribution: Q_t = γ_t·δ(y_t) + (1 − γ_t)·R_t + signed term, with an outer weight w_t.

Letters: T tokens, V vocabulary, π = softmax(z), p = π(y), δ = onehot(y). Everything here is detached: the gradient of
the loss with respect to the logits is w·(ΣQ·π − Q) by construction, whatever form the value takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .contrast import Signed
from .gamma.confidence import Anchored
from .numerics import entropy, expectation, product
from .residual import Uniform, even
from .rows import LabelRows, Rows
from .spec import AnyContrast, AnyGamma, AnyResidual, PreviousPolicy, TargetSpec, Weight

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AnyContrast",
    "AnyGamma",
    "AnyResidual",
    "Design",
    "PreviousPolicy",
    "TargetSpec",
    "Weight",
    "count",
    "design",
    "drops_tokens",
    "trust",
    "weights",
]


@dataclass(frozen=True, eq=False)
class Design:
    """Q at some rows as label·δ + student·π + even·uniform + dense, with weight and value. All detached."""

    rows: Rows
    label: Tensor  # (T,) coefficient of δ
    student: Tensor  # (T,) coefficient of π: costs nothing, its gradient is folded into π's
    even: Tensor | None  # (T,) mass spread over the real vocabulary
    dense: Tensor | None  # (T, V) everything else
    weight: Tensor  # (T,) outer weight w, times what the data says
    value: Tensor  # (T,) loss in nats, weight included
    q_sum: Tensor  # (T,) ΣQ

    @cached_property
    def q(self) -> Tensor:
        """Q, shape (T, V)."""
        q = self.student[:, None] * self.rows.probs
        if self.dense is not None:
            q = q + self.dense
        if self.even is not None:
            q = q + self.even[:, None] * even(self.rows)
        labels = self.rows.given("labels", "student")
        return q.scatter_add(-1, labels[:, None], self.label[:, None])

    def logit_gradient(self) -> Tensor:
        """∂(value)/∂z = w·(ΣQ·π − Q), shape (T, V)."""
        return self.weight[:, None] * (self.q_sum[:, None] * self.rows.probs - self.q)


def trust(spec: TargetSpec, rows: LabelRows) -> Tensor:
    """γ of each token, shape (T,), detached. A family whose `scope` is `batch` wants the scalars of the whole batch."""
    import torch

    with torch.no_grad():
        return spec.gamma.trust(rows)


def weights(spec: TargetSpec, rows: LabelRows, gamma: Tensor) -> Tensor:
    """The outer weight w of each token, shape (T,); it moves with the schedule of γ as γ does."""
    import torch

    scale = spec.weight.scale
    if spec.weight.kind == "trust":
        return scale * gamma
    if spec.weight.kind == "anchored" and isinstance(spec.gamma, Anchored):
        anchored = spec.gamma.label_coefficient(rows) + spec.gamma.lam
        return scale * (1 + spec.gamma.mix * (anchored - 1)) if spec.gamma.mix != 1 else scale * anchored
    return torch.full_like(gamma, scale)


def count(spec: TargetSpec, gamma: Tensor, weight: Tensor, data_weights: Tensor | None = None) -> Tensor:
    """What each token adds to the denominator of a batch, shape (T,).

    A trainer divides the summed loss by the sum of this over the valid tokens of the whole effective batch. all: 1.
    kept: 1 where the token carries a gradient. weights: w·(γ + (1 − γ)·m), m the share of the residual that is not
    the student's own: the coefficient of all that moves the student, so w·γ for a re-weighting and w for a mixture or
    with a signed term. The sum can be 0 when a mask keeps nothing: such a batch teaches nothing.

    A token with the weight u in the data counts u times, whatever the rule: twice is as if it were there twice.
    `weight` (T,) is that of `design`, which has u in it; `data_weights` (T,) is u.
    """
    import torch

    if spec.denominator == "weights":
        if spec.weight.kind == "trust" or spec.contrast_acts:
            return weight
        share = spec.residual.student_share if spec.residual_acts else 1.0
        return weight * (gamma + (1 - gamma) * (1 - share))
    once = torch.ones_like(gamma) if data_weights is None else data_weights
    if spec.denominator == "kept" and _masks(spec):  # a mask that never closes has no γ = 0
        return once * (gamma != 0)
    return once


def drops_tokens(spec: TargetSpec) -> bool:
    """Whether a mask of γ can leave tokens without any gradient."""
    return _masks(spec) and spec.gamma.ends()[0] == 0


def _masks(spec: TargetSpec) -> bool:
    """Whether γ is a mask, and nothing else teaches where it is 0."""
    teaches_anyway = spec.residual_acts or (spec.contrast_acts and spec.weight.kind != "trust")
    return spec.gamma.masks and not teaches_anyway


def design(spec: TargetSpec, rows: Rows, gamma: Tensor | None = None, label_loss: Tensor | None = None) -> Design:
    """The target at `rows`.

    `gamma` (T,) is given when it was computed over a larger batch, else `trust` is asked; `label_loss` (T,), the value
    of the label's term, where `rows` are not all that the family looks at.
    """
    import torch

    with torch.no_grad():
        return _design(spec, rows, trust(spec, rows) if gamma is None else gamma, label_loss)


def _design(spec: TargetSpec, rows: Rows, gamma: Tensor, label_loss: Tensor | None = None) -> Design:
    import torch

    weight = weights(spec, rows, gamma)
    if rows.weights is not None:
        weight = weight * rows.weights
    label_value = spec.gamma.label_loss(rows, gamma) if label_loss is None else label_loss
    if spec.weight.kind == "trust":
        gamma, label_value = torch.ones_like(gamma), -rows.label_logprobs
    rest = 1 - gamma
    spread = _residual(spec, rows, rest)
    signed = spec.contrast.signed(rows) if spec.contrast and spec.contrast.coefficient else None
    return Design(
        rows=rows,
        label=gamma if signed is None else gamma + signed.label,
        student=spread.student if signed is None else spread.student + signed.student,
        even=spread.even,
        dense=_sum(spread.dense, None if signed is None else signed.dense),
        weight=weight,
        value=product(weight, _value(label_value, product(rest, spread.loss), signed, rows)),
        q_sum=gamma + rest * spread.total,
    )


@dataclass(frozen=True, eq=False)
class _Spread:
    """(1 − γ)·R in the form of `Design`, with the loss of R itself (T,) and ΣR (T,)."""

    student: Tensor
    even: Tensor | None
    dense: Tensor | None
    loss: Tensor
    total: Tensor


def _residual(spec: TargetSpec, rows: Rows, rest: Tensor) -> _Spread:
    import torch

    zero, one = torch.zeros_like(rest), torch.ones_like(rest)
    if not spec.residual_acts:
        loss = entropy(rows.logprobs_of("student")) if spec.residual_loss == "ce" else zero
        return _Spread(student=rest, even=None, dense=None, loss=loss, total=one)
    known = spec.residual.at_hand(rows)
    probs = spec.residual.probs(rows) if known is None else known[0]
    if spec.residual_loss == "kl":
        own = probs.log() if known is None else known[1]
        loss = expectation(probs, own - rows.logprobs_of("student"))
    else:
        loss = -expectation(probs, rows.logprobs_of("student"))
    if isinstance(spec.residual, Uniform) and not spec.residual.exclude_label:
        return _Spread(student=zero, even=rest, dense=None, loss=loss, total=one)
    return _Spread(student=zero, even=None, dense=rest[:, None] * probs, loss=loss, total=probs.sum(-1))


def _value(label: Tensor, residual: Tensor, signed: Signed | None, rows: Rows) -> Tensor:
    """The summed value (T,); what has no finite price (mass on impossible tokens, of whatever sign) costs +∞."""
    import torch

    value = label + residual
    if signed is not None:
        value = value + product(signed.label, -rows.label_logprobs) + signed.value
    return torch.where(value.isfinite(), value, torch.inf)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
