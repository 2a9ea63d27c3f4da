"""Trust as a function of the label's probability p alone. Letters: T tokens, p = π(y)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from ..numerics import box_cox, power, product
from ..ranges import Searched
from ..rows import LabelRows
from .base import Gamma, SourcedGamma

if TYPE_CHECKING:
    from torch import Tensor


class Constant(Gamma):
    """γ = value. 1 is SFT; 1 − λ is label smoothing, hybrid distillation; 0 is distillation."""

    kind: Literal["constant"] = "constant"
    value: Annotated[float, Field(ge=0, le=1), Searched(0.0, 1.0)] = 1.0

    def bounds(self) -> tuple[float, float]:
        return self.value, self.value

    def statistic(self, rows: LabelRows) -> Tensor:
        return rows.label_logprobs.new_full(rows.label_logprobs.shape, self.value)

    def formula(self) -> str:
        return f"{self.value:.2g}"


class Power(SourcedGamma):
    """γ = p^exponent: trust the label where the model already agrees. Beyond-log (2510.00526); 1 is DFT (2508.05629).

    0 gives cross-entropy. A negative exponent (prior-averse) is unbounded at p = 0 and needs a `ceiling`.
    """

    kind: Literal["power"] = "power"
    exponent: Annotated[float, Field(ge=-4, le=32), Searched(0.0, 2.0)] = 1.0
    """Dimensionless."""
    stopped: bool = True
    """Only the logged value: −sg(p^α)·log p when true, (1 − p^α)/α when false. The gradient is the same."""

    monotone = "increasing"

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.exponent < 0 and self.ceiling is None:
            raise ValueError(
                f"a negative `exponent` needs a `ceiling`, but got exponent={self.exponent} without one; "
                "p^exponent is unbounded as p goes to 0"
            )
        return self

    def bounds(self) -> tuple[float, float]:
        if self.exponent == 0:
            return 1.0, 1.0
        return (0.0, 1.0) if self.exponent > 0 else (1.0, math.inf)

    def statistic(self, rows: LabelRows) -> Tensor:
        return power(rows.label_logprobs_of(self.source), self.exponent)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.stopped or self.modified or self.source != "student":
            return super().label_loss(rows, gamma)
        return box_cox(rows.label_logprobs, self.exponent)

    def formula(self) -> str:
        return f"{self.symbol()}^{self.exponent:.2g}"


class Threshold(SourcedGamma):
    """γ = p^exponent · 1[low < p < high]: keep tokens inside a band of confidence.

    ProFit (2601.09195) is low = τ; its code keeps p = τ (`inclusive`). OnlyTopP-q of Beyond-log (2510.00526) is
    low = q with exponent 1 and `inclusive`, OnlyTopLogP-q the same with exponent 0; both divide by the kept tokens.
    """

    kind: Literal["threshold"] = "threshold"
    low: Annotated[float | None, Field(ge=0, le=1), Searched(0.01, 0.5, log=True)] = 0.1
    """Probability below which a token is dropped; None: no lower end."""
    high: Annotated[float, Field(ge=0, le=1)] | None = None
    """Probability above which a token is dropped; None: no upper end."""
    inclusive: bool = False
    """Whether the ends themselves are kept."""
    exponent: Annotated[float, Field(ge=0, le=32)] = 0.0

    masks = True

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("a threshold needs `low` or `high`, but got neither; the power family has no threshold")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"`low` must be below `high`, but got low={self.low}, high={self.high}")
        return self

    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0 if self.high is None else self.high**self.exponent

    def statistic(self, rows: LabelRows) -> Tensor:
        import torch

        log_p = rows.label_logprobs_of(self.source)
        p = log_p.exp()
        keep = torch.ones_like(p, dtype=torch.bool)
        if self.low is not None:
            keep &= p >= self.low if self.inclusive else p > self.low
        if self.high is not None:
            keep &= p <= self.high if self.inclusive else p < self.high
        return keep * power(log_p, self.exponent)

    def formula(self) -> str:
        sign = "≤" if self.inclusive else "<"
        low = "" if self.low is None else f"{self.low:.4g}{sign}"
        high = "" if self.high is None else f"{sign}{self.high:.4g}"
        factor = "" if self.exponent == 0 else f"{self.symbol()}^{self.exponent:.4g}·"
        return f"{factor}1[{low}{self.symbol()}{high}]"


class SoftThreshold(SourcedGamma):
    """γ = σ((p − low)/width): ProFit's step with a slope."""

    kind: Literal["soft_threshold"] = "soft_threshold"
    low: Annotated[float, Field(ge=0, le=1), Searched(0.0, 0.8)] = 0.1
    """Probability at which γ is one half."""
    width: Annotated[float, Field(ge=1e-3, le=10), Searched(0.01, 0.3, log=True)] = 0.05
    """Dimensionless: the step reaches from 0.27 to 0.73 over ± this much probability."""

    monotone = "increasing"

    def bounds(self) -> tuple[float, float]:
        low, high = (1 / (1 + math.exp(min(700.0, (self.low - p) / self.width))) for p in (0.0, 1.0))
        return low, high

    def statistic(self, rows: LabelRows) -> Tensor:
        return ((rows.label_logprobs_of(self.source).exp() - self.low) / self.width).sigmoid()

    def formula(self) -> str:
        return f"σ(({self.symbol()}−{self.low:.4g})/{self.width:.4g})"


class Anchored(SourcedGamma):
    """γ = p^exponent/(p^exponent + lam): the label's share in sg(p^exponent)·(−log p) + lam·KL(residual‖π).

    With the weight rule `anchored` (w = p^exponent + lam) this is that sum itself: ASFT (2509.23753) at exponent 1,
    SFT + KL at exponent 0. lam = 0 gives γ = 1.
    """

    kind: Literal["anchored"] = "anchored"
    lam: Annotated[float, Field(ge=0, le=1e6), Searched(0.01, 1.0, log=True)] = 0.1
    """λ, the coefficient of the divergence to the residual."""
    exponent: Annotated[float, Field(ge=0, le=32)] = 1.0

    monotone = "increasing"

    def bounds(self) -> tuple[float, float]:
        low = 0.0 if self.exponent > 0 and self.lam > 0 else 1 / (1 + self.lam)
        return low, 1 / (1 + self.lam)

    def label_coefficient(self, rows: LabelRows) -> Tensor:
        """p^exponent, shape (T,): the coefficient of −log p."""
        return power(rows.label_logprobs_of(self.source), self.exponent)

    def statistic(self, rows: LabelRows) -> Tensor:
        import torch

        coefficient = self.label_coefficient(rows)
        return torch.ones_like(coefficient) if self.lam == 0 else coefficient / (coefficient + self.lam)

    def formula(self) -> str:
        p = f"{self.symbol()}^{self.exponent:.4g}"
        return f"{p}/({p}+{self.lam:.4g})"


class Focal(SourcedGamma):
    """Focal loss −(1 − p)^exponent·log p: less trust where the model already agrees (Lin et al., 1708.02002).

    γ = (1 − p)^a − a·p·(1 − p)^(a−1)·log p, which may exceed 1; with `stopped`, γ = sg((1 − p)^a) ≤ 1.
    """

    kind: Literal["focal"] = "focal"
    exponent: Annotated[float, Field(ge=0, le=16), Searched(0.1, 4.0, log=True)] = 2.0
    stopped: bool = False
    """Whether the factor (1 − p)^a is detached: another gradient, the same value."""

    def bounds(self) -> tuple[float, float]:
        if self.exponent == 0:
            return 1.0, 1.0
        # The non-stopped factor is largest at a·p·(−log p)/(1 − p) close to a; 1 + a bounds it.
        return (0.0, 1.0) if self.stopped else (0.0, 1.0 + self.exponent)

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        factor = self._factor(log_p)
        if self.stopped:
            return factor
        # −p·log p/(1 − p) goes to 1 as p → 1 and to 0 as p → 0: finite at both ends, unlike (1 − p)^(a−1).
        slope = product(log_p.exp(), log_p / log_p.expm1()).nan_to_num(nan=1.0)
        return factor * (1 + self.exponent * slope)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.stopped or self.modified or self.source != "student":
            return super().label_loss(rows, gamma)
        return product(self._factor(rows.label_logprobs), -rows.label_logprobs)

    def _factor(self, log_p: Tensor) -> Tensor:
        return power((-log_p.expm1()).log(), self.exponent)

    def formula(self) -> str:
        return f"focal {self.exponent:.4g}{' stopped' if self.stopped else ''} of {self.symbol()}"


class Tilt(SourcedGamma):
    """γ = (e^β − 1)p/(1 + (e^β − 1)p): the target ∝ prior·exp(β·1[a = y]) written as a mixture. GIFT (2601.09233).

    With source and residual `reference` this is GIFT exactly; β = 0 trusts nothing, a large β everything.
    """

    kind: Literal["tilt"] = "tilt"
    beta: Annotated[float, Field(ge=0, le=80), Searched(1.0, 30.0)] = 20.0
    """Nats added to the label's log-probability."""

    monotone = "increasing"

    def bounds(self) -> tuple[float, float]:
        return 0.0, -math.expm1(-self.beta)

    def statistic(self, rows: LabelRows) -> Tensor:
        import torch

        log_p = rows.label_logprobs_of(self.source)
        if self.beta == 0:
            return torch.zeros_like(log_p)
        return (log_p + self.beta + math.log1p(-math.exp(-self.beta))).sigmoid()

    def formula(self) -> str:
        return f"tilt {self.beta:.4g} of {self.symbol()}"
