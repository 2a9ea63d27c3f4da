"""What a design does to a token, as functions of the student's probability p of the label: the numbers of the figure.

The scene: a vocabulary of TOKENS tokens. The student gives p to the label and spreads the rest over the others in
falling shares; reference, previous policy and teacher keep their own opinion of the label and have the same tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rows import LabelRows, Rows
from .target import TargetSpec, design, trust

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 24
POINTS = 301
FALL = 0.8
"""Each token that is not the label has this share of the one before it."""
REFERENCE, PREVIOUS, TEACHER = 0.25, 0.5, 0.75
"""Probability of the label under the others."""
TYPICAL_NLL = 0.5
"""Nats: the mean negative log-likelihood of the other sequences of the batch."""


@dataclass(frozen=True, eq=False)
class Curves:
    """γ, the induced target on the label and the push on its logit over p, each (POINTS,)."""

    p: Tensor
    gamma: Tensor
    label_target: Tensor
    """Q(y) in the reading with outer weight 1: Q = π − ∂ℓ/∂z, so its height above p is the push."""
    push: Tensor
    """−∂ℓ/∂z_y = w·(Q(y) − ΣQ·p): how hard the label's logit is raised."""


def curves(spec: TargetSpec) -> Curves:
    """The curves of `spec` at its published knobs in the scene of this module."""
    import torch

    p = torch.linspace(1e-4, 1 - 1e-4, POINTS, dtype=torch.float64)
    rows = _rows(p)
    gamma = trust(spec, _among_others(rows)) if spec.gamma.scope == "batch" else trust(spec, rows)
    gamma = gamma[: len(p)]
    push = -design(spec, rows, gamma).logit_gradient()[:, 0]
    return Curves(p=p, gamma=gamma, label_target=p + push, push=push)


def _rows(p: Tensor) -> Rows:
    """The scene at each p; the label is token 0."""
    import torch

    student = _distribution(p)
    reference, previous, teacher = (
        _distribution(torch.full_like(p, fixed)) for fixed in (REFERENCE, PREVIOUS, TEACHER)
    )
    return Rows(
        label_logprobs=student[:, 0],
        reference_label_logprobs=reference[:, 0],
        teacher_label_logprobs=teacher[:, 0],
        old_logprobs=previous[:, 0],
        critical=torch.ones_like(p, dtype=torch.bool),
        sequence_ids=torch.arange(len(p)),
        logits=student,
        logprobs=student,
        labels=torch.zeros(len(p), dtype=torch.long),
        reference_logprobs=reference,
        previous_logprobs=previous,
        teacher_logprobs=teacher,
    )


def _distribution(p: Tensor) -> Tensor:
    """Log-probabilities (POINTS, TOKENS) with p on token 0."""
    import torch

    tail = FALL ** torch.arange(TOKENS - 1, dtype=p.dtype)
    return torch.cat([p[:, None], (1 - p)[:, None] * tail / tail.sum()], dim=1).log()


def _among_others(rows: Rows) -> LabelRows:
    """Each point as a sequence of one token, in a batch whose median sequence has TYPICAL_NLL."""
    import torch

    others = torch.full((2 * POINTS,), -TYPICAL_NLL, dtype=rows.label_logprobs.dtype)
    reference = rows.label_logprobs_of("reference")
    return LabelRows(
        label_logprobs=torch.cat([rows.label_logprobs, others]),
        reference_label_logprobs=torch.cat([reference, others]),
        sequence_ids=torch.arange(3 * POINTS),
    )
