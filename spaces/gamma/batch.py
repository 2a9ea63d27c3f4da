"""Trust from the statistics of the whole batch of labels. Letters: T tokens, p = π(y), NLL = −log p.

The batch is what the trainer passes: usually one micro-batch, as in the authors' code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..numerics import log_ratio, power, sequence_means
from ..ranges import Searched
from ..rows import LabelRows
from .base import Gamma, SourcedGamma, raised

if TYPE_CHECKING:
    from torch import Tensor


class MedianPower(SourcedGamma):
    """γ = max(floor, p^(1/τ)), τ the median over sequences of the mean negative log-likelihood. TALR (2509.20758).

    Read from a third-party implementation; an even number of sequences takes the lower median, as torch does.
    """

    kind: Literal["median_power"] = "median_power"
    floor: Annotated[float, Field(ge=0, le=1), Searched(0.001, 0.1, log=True)] = 0.01

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"sequence_ids"}

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        ids = rows.given("sequence_ids", "sequence_ids")
        if not len(ids):
            return log_p.exp()
        # Held inside [1e-6, 1e4] nats so that neither 0/0 nor ∞/∞ can occur.
        tau = sequence_means(-log_p, ids)[0].median().clamp(1e-6, 1e4)
        return (log_p / tau).exp()

    def formula(self) -> str:
        return f"{self.symbol()}^(1/median NLL)"


class SequenceOutlier(SourcedGamma):
    """γ = p^exponent·exp(−strength·max(0, z)), z the z-score of the sequence's mean NLL in its batch.

    CADFT (2606.11206): demonstrations that the model finds unlikely among their neighbours lose trust as a whole. The
    deviation is that of the batch itself (not of a sample), plus the authors' 10⁻⁶ nats.
    """

    kind: Literal["sequence_outlier"] = "sequence_outlier"
    strength: Annotated[float, Field(ge=0, le=100), Searched(0.1, 4.0, log=True)] = 1.0
    """β, per standard deviation."""
    exponent: Annotated[float, Field(ge=0, le=32)] = 1.0

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"sequence_ids"}

    def bounds(self) -> tuple[float, float]:
        return float(self.exponent == self.strength == 0), 1.0

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        trusted = power(log_p, self.exponent)
        if not len(log_p) or self.strength == 0:
            return trusted
        # Held at 10⁴ nats so that one impossible token does not make every score undefined.
        means, index = sequence_means(-log_p.clamp(min=-1e4), rows.given("sequence_ids", "sequence_ids"))
        scores = (means - means.mean()) / (means.std(correction=0) + OUTLIER_EPSILON)
        return trusted * (-self.strength * scores.clamp(min=0)).exp()[index]

    def formula(self) -> str:
        trusted = "" if self.exponent == 0 else f"{raised(self.symbol(), self.exponent)}·"
        return f"{trusted}exp(−{self.strength:.4g}·max(0, z of sequence NLL))"


OUTLIER_EPSILON = 1e-6
"""Nats added to the deviation in CADFT."""


class TemperedLikelihood(SourcedGamma):
    """γ = exp(−NLL/temperature) of the source, of each token or as the mean over its sequence. FLOW (2502.02797).

    FLOW asks the start model (source reference) and takes as temperature the median over the data set: `median` is that
    of the batch that trust is given for, of an even number the mean of the middle two; a number fixes it.
    """

    kind: Literal["tempered_likelihood"] = "tempered_likelihood"
    level: Literal["sequence", "token"] = "sequence"
    temperature: Annotated[
        Literal["median"] | Annotated[float, Field(gt=0, le=1e4)], Searched(0.1, 4.0, log=True, by_name=True)
    ] = "median"
    """Nats a token."""

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch" if self.level == "sequence" or self.temperature == "median" else "token"

    @property
    def within_sequence(self) -> bool:
        return self.temperature != "median"

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | ({"sequence_ids"} if self.level == "sequence" else set())

    def statistic(self, rows: LabelRows) -> Tensor:
        cost = -rows.label_logprobs_of(self.source)
        if not len(cost):
            return (-cost).exp()
        index = None
        if self.level == "sequence":
            cost, index = sequence_means(cost, rows.given("sequence_ids", "sequence_ids"))
        # The median is held inside [1e-6, 1e4] nats so that neither 0/0 nor ∞/∞ can occur.
        typical = middle(cost).clamp(1e-6, 1e4) if self.temperature == "median" else self.temperature
        likelihood = (-cost / typical).exp()
        return likelihood if index is None else likelihood[index]

    def formula(self) -> str:
        over = "median" if self.temperature == "median" else f"{self.temperature:.4g}"
        return f"exp(−{self.level} NLL of {self.symbol()}/{over})"


def middle(values: Tensor) -> Tensor:
    """The median of (N,) values; of an even number the mean of the middle two."""
    ranked = values.sort().values
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


class CayleyPower(SourcedGamma):
    """γ = p^a, a = f + (1 − f)·p/(2 − p), f = clamp(½·mean p, 10⁻³, 1). Cayley_Trans in DEFT's code (2602.11424)."""

    kind: Literal["cayley_power"] = "cayley_power"

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    def statistic(self, rows: LabelRows) -> Tensor:
        log_p = rows.label_logprobs_of(self.source)
        p = log_p.exp()
        if not len(p):
            return p
        least = (p.mean() / 2).clamp(1e-3, 1)
        return power(log_p, least + (1 - least) * p / (2 - p))

    def formula(self) -> str:
        return f"{self.symbol()}^Cayley"


class MedianCap(SourcedGamma):
    """γ = min(1, ratio·median NLL/NLL): a token costs at most `ratio` medians. sft-antiop (token-SFT)."""

    kind: Literal["median_cap"] = "median_cap"
    ratio: Annotated[float, Field(gt=0, le=100), Searched(0.5, 10.0, log=True)] = 3.0

    monotone = "increasing"

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    def statistic(self, rows: LabelRows) -> Tensor:
        nll = rows.label_logprobs_of(self.source).abs()  # +0 and not −0 at p = 1
        if not len(nll):
            return nll
        typical = nll.median().clamp(max=1e4)  # nats; ∞/∞ cannot occur
        return (self.ratio * typical / nll).nan_to_num(nan=1.0, posinf=1.0).clamp(max=1)

    def formula(self) -> str:
        return f"min(1, {self.ratio:.4g}·median NLL/NLL of {self.symbol()})"


class Rank(Gamma):
    """γ = 1[the token is among the `share` of the batch with the lowest, or highest, loss or excess loss].

    The lowest 0.7 by loss is sft-topk (token-SFT). The highest excess loss NLL − NLL_ref is the form of Rho-1
    (2404.07965), from memory and unconfirmed. Both divide by the kept tokens (`denominator: kept`).
    """

    kind: Literal["rank"] = "rank"
    by: Literal["loss", "excess"] = "loss"
    keep: Literal["lowest", "highest"] = "lowest"
    share: Annotated[float, Field(gt=0, lt=1), Searched(0.3, 0.95)] = 0.7

    masks = True

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"} if self.by == "excess" else ())

    def statistic(self, rows: LabelRows) -> Tensor:
        cost = -rows.label_logprobs
        if self.by == "excess":
            cost = log_ratio(rows.label_logprobs_of("reference"), rows.label_logprobs)
        if self.keep == "highest":
            cost = -cost
        if not len(cost):
            return cost
        # The linear quantile of the authors' code keeps the same tokens, but is NaN next to an infinite loss.
        last = math.floor(self.share * (len(cost) - 1) + 1e-9)
        return (cost <= cost.sort().values[last]).to(cost.dtype)

    def formula(self) -> str:
        return f"1[{self.keep} {self.share:.4g} by {self.by}]"
