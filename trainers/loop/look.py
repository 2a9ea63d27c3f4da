"""A look at a training on its way: its weights as if it ended there, which they are not yet made for.

At a high learning rate weights wander about what they have learnt, and a score of them says little of the one at the
end. So a look may go a few steps further, at a rate that falls to nothing, and the training goes on from where it was
(the decay of warm-up-stable-decay schedules, Hu et al. 2024, as a branch that is thrown away).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """Where a training shows its weights."""

    step: int
    """Optimiser steps done."""
    decay_steps: int
    """Steps of the branch, on the batches that come next; they are undone, and need a folder for checkpoints."""
    show: Callable[[int], bool]
    """Gets the step, and may evaluate the model; True on any rank stops the training there, on all of them."""


@dataclass(frozen=True)
class Branch:
    """Further steps that will be undone."""

    start: int
    """Optimiser steps done before it."""
    steps: int
    rate: float
    """Learning rate that the training would go on with."""

    def learning_rate(self, step: int) -> float:
        """Of optimiser step `step`, counted from 0: a straight line that would reach 0 right after the last one."""
        return self.rate * (1.0 - (step - self.start + 1) / (self.steps + 1))
