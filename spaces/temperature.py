"""A temperature τ for each token, chosen by what it does to the entropy. Letters: T tokens, V vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from .numerics import entropy, log_softmax
from .settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS = 20
"""Of the interval between `low` and `high`, as in the authors' code."""


class AdaptiveTemperature(Settings):
    """τ ∈ [low, high] that raises the entropy H to H + gain·σ(slope·(H − typical)), found by bisection.

    H is that of the `top_k` most probable tokens, renormalised. Where the entropy of the whole row is at most
    `certain`, τ = low: a certain token is hardly flattened. CurioSFT (2602.02244); the numbers are those of its code.
    """

    low: Annotated[float, Field(ge=1, le=10)] = 1.1
    high: Annotated[float, Field(ge=1, le=10)] = 1.5
    gain: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Nats that are added where H is large; half of it at `typical`."""
    slope: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Per nat."""
    typical: Annotated[float, Field(ge=0, le=20)] = 1.2
    """Nats."""
    certain: Annotated[float, Field(ge=0, le=20)] = 0.03
    """Nats."""
    top_k: Annotated[int, Field(ge=2)] = 512

    @model_validator(mode="after")
    def _is_an_interval(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"`low` must be below `high`, but got low={self.low}, high={self.high}; a fixed temperature is a number"
            )
        return self

    def of(self, logprobs: Tensor) -> Tensor:
        """τ of each row of log-probabilities (T, V), shape (T,)."""
        import torch

        top = logprobs.topk(min(self.top_k, logprobs.shape[-1]), dim=-1).values
        low = torch.full_like(logprobs[:, 0], self.low)
        high = torch.full_like(low, self.high)
        flat = _entropy_at(top, torch.ones_like(low))
        wanted = flat + self.gain * (self.slope * (flat - self.typical)).sigmoid()
        low = low.where(wanted < _entropy_at(top, high), high)
        high = high.where(wanted > _entropy_at(top, torch.full_like(low, self.low)), self.low)
        for _ in range(HALVINGS + 1):
            middle = (low + high) / 2
            rises = _entropy_at(top, middle) < wanted
            low, high = middle.where(rises, low), high.where(rises, middle)
        tau = (low + high) / 2
        return tau.masked_fill(entropy(logprobs) <= self.certain, self.low)

    def label_logprobs(self, logprobs: Tensor, labels: Tensor) -> Tensor:
        """Log-probability of the labels (T,) under the rows (T, V) at their temperatures, shape (T,), nats."""
        flattened = log_softmax(logprobs / self.of(logprobs)[:, None])
        return flattened.gather(-1, labels[:, None]).squeeze(-1)

    def title(self) -> str:
        """As a short text."""
        return f"τ∈[{self.low:.3g}, {self.high:.3g}] by entropy"


def _entropy_at(scores: Tensor, tau: Tensor) -> Tensor:
    """Entropy of softmax(scores/τ), shape (T,), nats; scores (T, K), τ (T,)."""
    return entropy(log_softmax(scores / tau[:, None]))
