"""The base of every trust family: γ_t says how much of the target's mass lies on the observed token.

Letters: T tokens, p = π(y) the probability of the label.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..numerics import product
from ..ranges import Searched
from ..rows import LabelRows, Source
from ..settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


MODELS = frozenset({"teacher", "reference", "previous"})
"""Inputs that are distributions of other models."""


class Schedule(Settings):
    """γ moves between 1 (plain SFT) and the family over training: γ(s) = 1 − u(s)·(1 − γ).

    `step` switches at `start`, and `end` means nothing: two stages, such as SFT and then the marked tokens alone.
    """

    direction: Literal["from_one", "to_one"] = "from_one"
    """`from_one`: start as SFT and end in the family. `to_one`: the reverse."""
    shape: Literal["linear", "cosine", "step"] = "linear"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training before which nothing moves."""
    end: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training after which nothing moves."""

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"`start` must be below `end`, but got start={self.start}, end={self.end}")
        return self

    def share(self, progress: float) -> float:
        """u ∈ [0, 1]: how much of the family's γ is in force at `progress` ∈ [0, 1] of the training."""
        ramp = min(1.0, max(0.0, (progress - self.start) / (self.end - self.start)))
        if self.shape == "cosine":
            ramp = 0.5 - 0.5 * math.cos(math.pi * ramp)
        if self.shape == "step":
            ramp = float(progress >= self.start)
        return ramp if self.direction == "from_one" else 1.0 - ramp


class Gamma(Settings):
    """A trust family and its modifiers: γ = 1 − mix·(1 − min(ceiling, max(floor, family)))."""

    kind: str
    floor: Annotated[float | None, Field(ge=0, le=1), Searched(0.0, 0.5)] = 0.0
    """Least γ of the family; None: none, where a family may turn against a label."""
    ceiling: Annotated[float | None, Field(ge=0, le=100), Searched(0.0, 1.0)] = None
    """Largest γ of the family; where it is below `floor`, the ceiling wins."""
    mix: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the family; the rest is γ = 1."""
    schedule: Schedule | None = None
    """Moves `mix` over the training."""

    monotone: ClassVar[Literal["increasing", "decreasing"] | None] = None
    """How γ moves with p when everything else stays (a negative exponent turns it round)."""
    masks: ClassVar[bool] = False
    """Whether the family drops tokens (γ = 0 on a set that is not just p = 0)."""
    sees: ClassVar[Literal["labels", "margins", "rows"]] = "labels"
    """Whether the family needs dense rows, the label's lead over its best rival, or only its log-probabilities."""

    @property
    def scope(self) -> Literal["token", "batch"]:
        """`batch`: γ of a token depends on other tokens, so the scalars of the whole batch are needed."""
        return "token"

    @property
    def within_sequence(self) -> bool:
        """Of a family of batch scope: whether γ depends on tokens of the same sequence only."""
        return False

    @property
    def asks_student(self) -> bool:
        """Whether γ depends on the student as it is now."""
        return True

    @property
    def needs(self) -> frozenset[str]:
        """Inputs beyond the student's logits and the labels."""
        return frozenset()

    @property
    def needs_rows(self) -> frozenset[str]:
        """Those of `needs` that are looked at beyond the label's log-probability."""
        return self.needs & MODELS if self.sees == "rows" else frozenset()

    @property
    def floored(self) -> bool:
        """Whether another floor is set than the family has by itself."""
        return self.floor is not None and self.floor != type(self).model_fields["floor"].default

    @property
    def modified(self) -> bool:
        """Whether a modifier is set, so that γ is no longer the published one."""
        return self.mix != 1 or self.schedule is not None or self.floored or self.ceiling is not None

    def bounds(self) -> tuple[float, float]:
        """Smallest and largest γ of the unmodified family."""
        return 0.0, 1.0

    def ends(self) -> tuple[float, float]:
        """Smallest and largest γ once the modifiers have acted, before any schedule."""
        if self.mix == 0:
            return 1.0, 1.0
        top = math.inf if self.ceiling is None else self.ceiling
        least = -math.inf if self.floor is None else self.floor
        low, high = (1 - self.mix * (1 - min(top, max(least, end))) for end in self.bounds())
        return low, high

    def statistic(self, rows: LabelRows) -> Tensor:
        """γ of the unmodified family, shape (T,)."""
        raise TypeError(f"`{type(self).__name__}` is a base class and has no γ of its own")

    def trust(self, rows: LabelRows) -> Tensor:
        """γ with its modifiers, shape (T,), detached."""
        if self.schedule is not None:
            raise ValueError("the schedule of γ is not resolved; pass `spec.at(progress)` with progress in [0, 1]")
        gamma = self.statistic(rows).detach()
        if self.floor is not None or self.ceiling is not None:
            gamma = gamma.clamp(min=self.floor, max=self.ceiling)
        return gamma if self.mix == 1 else 1 - self.mix * (1 - gamma)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        """Value of the label's term, shape (T,), nats: −γ·log p, or the published form of the family."""
        return product(gamma, -rows.label_logprobs)

    def formula(self) -> str:
        """γ as a short text."""
        return self.kind

    def title(self) -> str:
        """γ and its modifiers as a short text."""
        text = self.formula()
        if self.floor is not None and (self.floor > 0 or self.floored):
            text = f"max({self.floor:.2g}, {text})"
        if self.ceiling is not None:
            text = f"min({self.ceiling:.2g}, {text})"
        if self.mix != 1:
            text = f"1−{self.mix:.2g}(1−{text})"
        if self.schedule is not None:
            text += f", {self.schedule.direction.replace('_', ' ')} {self.schedule.shape}"
        return text


def raised(symbol: str, exponent: float) -> str:
    """`symbol` to the power of `exponent` as a short text."""
    if exponent in (0, 1):
        return symbol if exponent else "1"
    return f"{symbol}^{exponent:.4g}"


class SourcedGamma(Gamma):
    """A family of a distribution that may be the student's, the frozen reference's or the teacher's."""

    source: Source = "student"
    """Who supplies the trust signal."""

    @property
    def asks_student(self) -> bool:
        return self.source == "student"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.source == "student" else frozenset({self.source})

    def symbol(self) -> str:
        """p with its source."""
        return {"student": "p", "reference": "p_ref", "teacher": "p_T"}[self.source]
