"""Trust with a peak: in tokens the model neither knows nor finds hopeless. Letters: T tokens, p = π(y)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..numerics import product
from ..ranges import Searched
from ..rows import LabelRows
from .base import Gamma, SourcedGamma

if TYPE_CHECKING:
    from torch import Tensor


class Bump(SourcedGamma):
    """γ = scale·p(1 − p): trust tokens the model is undecided about. CHORD-φ (2508.11408) at scale 1."""

    kind: Literal["bump"] = "bump"
    scale: Annotated[float, Field(gt=0, le=4), Searched(1.0, 4.0, log=True)] = 1.0

    def bounds(self) -> tuple[float, float]:
        return 0.0, self.scale / 4

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        return -self.scale * log_p.exp() * log_p.expm1()

    def formula(self) -> str:
        return f"{self.scale:.4g}·{self.symbol()}(1−{self.symbol()})"


class Shaping(SourcedGamma):
    """γ = lam·p/(p + lam)² = s(1 − s) with s = p/(p + lam): a bump in p whose peak lies at lam.

    The policy shaping of LUFFY (2504.14945), whose value is −p/(p + lam).
    """

    kind: Literal["shaping"] = "shaping"
    lam: Annotated[float, Field(gt=0, le=100), Searched(0.01, 1.0, log=True)] = 0.1
    """λ, the probability at which a token teaches most."""

    def bounds(self) -> tuple[float, float]:
        return 0.0, self.lam / (1 + self.lam) ** 2 if self.lam > 1 else 0.25

    def statistic(self, rows: LabelRows) -> Tensor:
        odds = rows.label_logprobs_of(self.source) - math.log(self.lam)
        return odds.sigmoid() * (-odds).sigmoid()

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.modified or self.source != "student":
            return super().label_loss(rows, gamma)
        return -(rows.label_logprobs - math.log(self.lam)).sigmoid()

    def formula(self) -> str:
        return f"{self.lam:.4g}·{self.symbol()}/({self.symbol()}+{self.lam:.4g})²"


class Information(SourcedGamma):
    """γ = p·max(0, 1 − logit(p)/logit(silent)): how much a likely step still teaches. InfoSFT (2605.14967).

    Zero from p = silent on; largest just above ½; above DFT's p below it. The authors stop p and use the online model.
    """

    kind: Literal["information"] = "information"
    silent: Annotated[float, Field(ge=0.51, le=0.999999), Searched(0.7, 0.99)] = 0.93
    """P, the probability from which a token teaches nothing."""

    masks = True

    def bounds(self) -> tuple[float, float]:
        return 0.0, information_peak(self.silent)

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        rise = 1 + ((-log_p.expm1()).log() - log_p) / math.log(self.silent / (1 - self.silent))
        return product(log_p.exp(), rise.clamp(min=0))

    def formula(self) -> str:
        p = self.symbol()
        return f"{p}·max(0, 1−logit {p}/logit {self.silent:.4g})"


def information_peak(silent: float) -> float:
    """The largest p·(1 − logit(p)/logit(silent)) over p."""
    top = math.log(silent / (1 - silent))
    low, high = 1e-12, silent
    for _ in range(60):  # the slope top − logit(p) − 1/(1 − p) falls
        p = (low + high) / 2
        low, high = (p, high) if top - math.log(p / (1 - p)) - 1 / (1 - p) > 0 else (low, p)
    return low * (1 - math.log(low / (1 - low)) / top)


class Margin(Gamma):
    """γ = exp(−(m − margin)²/(2·width²)), m = z_y − max over v ≠ y of z_v. TrimSFT (2609.09707).

    Trims what the model has mastered (m large) and what it has no support for (m far below 0). Needs two logits a row.
    """

    kind: Literal["margin"] = "margin"
    margin: Annotated[float, Field(ge=-20, le=20), Searched(-2.0, 4.0)] = 1.5
    """μ, nats: the lead of the label over its best rival at which trust is 1."""
    width: Annotated[float, Field(ge=0.05, le=50), Searched(0.3, 4.0, log=True)] = 0.8
    """τ, nats."""

    sees = "margins"

    def statistic(self, rows: LabelRows) -> Tensor:
        return (-0.5 * ((rows.margins() - self.margin) / self.width).square()).exp()

    def formula(self) -> str:
        return f"exp(−(m−{self.margin:.4g})²/(2·{self.width:.4g}²))"
