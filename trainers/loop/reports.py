"""What a training says of itself: of each step, of its end, and why it could not go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..loss import LossSum


@dataclass(frozen=True)
class StepReport:
    """One optimiser step; means over the valid tokens of its effective batch."""

    step: int
    """Counted from 1."""
    steps: int
    loss: float
    """Nats a token, in the published form of the target."""
    tokens: int
    """Tokens with a loss."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    label_prob: float
    entropy: float
    """Nats."""
    seconds: float


@dataclass(frozen=True)
class TrainingOutcome:
    """How a call of `train` ended."""

    status: Literal["finished", "stopped"]
    step: int
    """Optimiser steps done, those before a resume included."""
    tokens: int
    """Tokens with a loss seen, those before a resume included."""
    seconds: float
    """Time in steps, that before a resume included."""


class DivergedError(RuntimeError):
    """Loss or gradient stopped being finite; the weights are those before the step."""

    def __init__(self, step: int, loss: float, gradient_norm: float) -> None:
        super().__init__(
            f"step {step} must have a finite loss and gradient, but got loss={loss} and gradient norm={gradient_norm}; "
            "lower `learning_rate` or bound the target's weight"
        )
        self.step, self.loss, self.gradient_norm = step, loss, gradient_norm


@dataclass(frozen=True)
class Totals:
    """Sums over the valid tokens of an effective batch, over all ranks."""

    loss: float
    denominator: float
    """What the design divides the loss by: the number of tokens for most."""
    label_prob: float
    entropy: float

    @staticmethod
    def sums(loss: LossSum) -> Tensor:
        """The four of one micro-batch, which add up, shape (4,)."""
        count = loss.loss_sum.new_tensor(loss.num_tokens) if loss.denominator is None else loss.denominator
        parts = (loss.loss_sum.detach(), count, loss.p_label.sum(), loss.entropy.sum())
        return torch.stack([part.double() for part in parts])
