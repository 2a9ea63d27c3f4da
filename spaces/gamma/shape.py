"""Trust from the shape of the whole distribution: entropy, concentration, mass. Letters: T tokens, V vocabulary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from ..numerics import entropy, power
from ..ranges import Searched
from ..rows import LabelRows, Rows
from .base import SourcedGamma

if TYPE_CHECKING:
    from torch import Tensor


class TopkEntropy(SourcedGamma):
    """γ = (H(top-k renormalised π)/normaliser)^exponent. EAFT (2601.02151): k = 20, normaliser log k, exponent 1.

    LLaMA-Factory divides by 3.0 whatever k is; axolotl of July 2026 by nothing (1.0), and then γ reaches log k.
    A vocabulary smaller than k counts as k = V.
    """

    kind: Literal["topk_entropy"] = "topk_entropy"
    k: Annotated[int, Field(ge=2, le=4096)] = 20
    normalizer: Literal["log_k"] | Annotated[float, Field(gt=0, le=100)] = "log_k"
    """`log_k`, or a constant in nats."""
    exponent: Annotated[float, Field(ge=0, le=16), Searched(0.25, 4.0, log=True)] = 1.0

    sees = "rows"

    def bounds(self) -> tuple[float, float]:
        if self.exponent == 0:
            return 1.0, 1.0
        top = 1.0 if self.normalizer == "log_k" else (math.log(self.k) / self.normalizer) ** self.exponent
        return 0.0, top

    def statistic(self, rows: LabelRows) -> Tensor:
        logprobs = cast(Rows, rows).logprobs_of(self.source)
        k = min(self.k, logprobs.shape[-1])
        nats = entropy(logprobs.topk(k, dim=-1).values.log_softmax(-1))
        normalizer = math.log(k) if self.normalizer == "log_k" else self.normalizer
        return power((nats / normalizer).log(), self.exponent)

    def formula(self) -> str:
        norm = f"ln {self.k}" if self.normalizer == "log_k" else f"{self.normalizer:.4g}"
        return f"(H_top{self.k}/{norm})^{self.exponent:.4g}"


class ConcentrationPower(SourcedGamma):
    """γ = p^a·a/(a + 10⁻⁶), a = sg Σπ²: the exponent follows the concentration. DEFT (2602.11424)."""

    kind: Literal["concentration_power"] = "concentration_power"

    sees = "rows"

    def _terms(self, rows: LabelRows) -> tuple[Tensor, Tensor]:
        dense = cast(Rows, rows)
        concentration = dense.logprobs_of(self.source).exp().square().sum(-1)
        return concentration, dense.label_logprobs_of(self.source)

    def statistic(self, rows: LabelRows) -> Tensor:
        a, log_p = self._terms(rows)
        return power(log_p, a) * a / (a + DEFT_EPSILON)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.modified or self.source != "student":
            return super().label_loss(rows, gamma)
        a, log_p = self._terms(rows)
        return -(a * log_p).expm1() / (a + DEFT_EPSILON)

    def formula(self) -> str:
        return f"{self.symbol()}^Σπ²"


DEFT_EPSILON = 1e-6
"""Added to the exponent in DEFT's denominator."""


class SurprisePower(SourcedGamma):
    """γ = p^c, c = clamp(exp(−(log p + H)/β), low, high): surprise beyond the entropy costs trust. IDFT (2602.12222).

    The two ends are the authors' clamp of the exponent.
    """

    kind: Literal["surprise_power"] = "surprise_power"
    beta: Annotated[float, Field(gt=0.01, le=100), Searched(0.25, 4.0, log=True)] = 1.0
    """Nats."""
    low: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least exponent."""
    high: Annotated[float, Field(ge=1, le=32)] = 2.0
    """Largest exponent."""

    sees = "rows"

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        surprise = -(log_p + entropy(cast(Rows, rows).logprobs_of(self.source)))
        return power(log_p, (surprise / self.beta).exp().clamp(self.low, self.high))

    def formula(self) -> str:
        return f"{self.symbol()}^exp((−log {self.symbol()}−H)/{self.beta:.4g})"


class Mass(SourcedGamma):
    """γ = 1[y lies in the smallest set of tokens with cumulative mass ≥ mass]. PriFT-mass (2606.09396), of π_ref.

    Written as its authors do: u ≥ 1 − mass, u the mass of the tokens that are no more likely than y; theirs is ½. On
    the very edge, u = 1 − mass, the label is kept.
    """

    kind: Literal["mass"] = "mass"
    mass: Annotated[float, Field(gt=0, lt=1), Searched(0.2, 0.95)] = 0.5

    sees = "rows"
    masks = True

    def statistic(self, rows: LabelRows) -> Tensor:
        probs = cast(Rows, rows).logprobs_of(self.source).exp()
        label = rows.label_logprobs_of(self.source).exp()
        support = (probs * (probs <= label[:, None])).sum(-1)
        return (support >= 1 - self.mass).to(probs.dtype)

    def formula(self) -> str:
        return f"1[y in top mass {self.mass:.4g} of {self.source}]"


class Diversity(SourcedGamma):
    """γ = 1 − lam·m·p(2p − 1), m = 1[the two most probable tokens hold less than theta]. SED-SFT (2602.07464).

    From −log p + lam·m·(p − ½)² with m held still; γ may reach 1 + lam/8. The authors set theta from a quantile of the
    data; the default is ours.
    """

    kind: Literal["diversity"] = "diversity"
    lam: Annotated[float, Field(ge=0, le=10), Searched(0.1, 1.0, log=True)] = 1.0
    theta: Annotated[float, Field(gt=0, lt=1), Searched(0.5, 0.99)] = 0.9

    sees = "rows"

    def bounds(self) -> tuple[float, float]:
        rise = max(0.0, self.theta * (2 * self.theta - 1))  # p is below theta where m = 1, and largest there
        least = min(0.25, self.theta)
        return 1 - self.lam * rise, 1 + self.lam * least * (1 - 2 * least)

    def _open(self, rows: LabelRows) -> Tensor:
        logprobs = cast(Rows, rows).logprobs_of(self.source)
        return (logprobs.topk(min(2, logprobs.shape[-1]), dim=-1).values.exp().sum(-1) < self.theta).to(logprobs.dtype)

    def statistic(self, rows: LabelRows) -> Tensor:
        p = rows.label_logprobs_of(self.source).exp()
        return 1 - self.lam * self._open(rows) * p * (2 * p - 1)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.modified or self.source != "student":
            return super().label_loss(rows, gamma)
        return -rows.label_logprobs + self.lam * self._open(rows) * (rows.label_probs - 0.5).square()

    def formula(self) -> str:
        return f"1−{self.lam:.4g}·1[top-2<{self.theta:.4g}]·{self.symbol()}(2{self.symbol()}−1)"
