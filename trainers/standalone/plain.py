"""Plain SFT as a design, in the place where an exported loss holds its own: what the frame in `loss.py` asks of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .loss import Rows

TITLE = "γ = 1"
NEEDS: frozenset[str] = frozenset()
NEEDS_ROWS: frozenset[str] = frozenset()
REFRESH: tuple[int | None, float] = (None, 0.0)
BATCH_SCOPE = False
DENOMINATOR = "all"


@dataclass(frozen=True, eq=False)
class Design:
    """Loss and logit gradient of some tokens under plain SFT."""

    rows: Rows
    weight: Tensor

    @property
    def value(self) -> Tensor:
        """−log p, times how often the token counts, shape (T,)."""
        return -self.weight * self.rows.label_logprobs

    def logit_gradient(self) -> Tensor:
        """π − δ, times how often the token counts, shape (T, V)."""
        one = torch.ones_like(self.weight)[:, None]
        return self.weight[:, None] * self.rows.probs.scatter_add(-1, self.rows.labels[:, None], -one)


def trust(rows: Rows) -> Tensor:
    """γ of each token, shape (T,)."""
    return torch.ones_like(rows.label_logprobs)


def _design(rows: Rows, gamma: Tensor) -> Design:
    return Design(rows, gamma if rows.weights is None else gamma * rows.weights)


def count(gamma: Tensor, weight: Tensor, data_weights: Tensor | None = None) -> Tensor:
    """What each token adds to the denominator of a batch, shape (T,)."""
    return torch.ones_like(gamma) if data_weights is None else data_weights


def mix_at(progress: float) -> float:
    """Share of the family in γ at `progress` in [0, 1]."""
    return 1.0
