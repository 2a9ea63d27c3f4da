"""Trust from ratios to other policies, from the batch, or from a data column. Letters: T tokens, p = π(y)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .gamma import Gamma, SourcedGamma
from .numerics import log_ratio, sequence_means
from .ranges import Searched
from .rows import LabelRows

if TYPE_CHECKING:
    from torch import Tensor


class LikelihoodRatio(Gamma):
    """γ = min(cap, exp(temperature·r)), r the log-ratio of student to reference. iw-SFT (2507.12856).

    `sequence` averages r over the tokens of a sequence (the official code; `sum` is the paper's trajectory ratio);
    `token` takes each token's own r (the code's other branch holds it inside [0.2, 1.8]: floor 0.2, cap 1.8).
    """

    kind: Literal["likelihood_ratio"] = "likelihood_ratio"
    level: Literal["sequence", "sum", "token"] = "sequence"
    temperature: Annotated[float, Field(gt=0, le=16)] = 1.0
    """Factor of the log-ratio, as the authors call it."""
    cap: Annotated[float, Field(gt=0, le=100), Searched(1.0, 16.0, log=True)] = 16.0

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "token" if self.level == "token" else "batch"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"} if self.level == "token" else {"reference", "sequence_ids"})

    def bounds(self) -> tuple[float, float]:
        return 0.0, self.cap

    def statistic(self, rows: LabelRows) -> Tensor:
        ratio = log_ratio(rows.label_logprobs, rows.label_logprobs_of("reference"))
        if self.level != "token":
            ids = rows.given("sequence_ids", "sequence_ids")
            means, index = sequence_means(ratio, ids)
            ratio = (means * index.bincount() if self.level == "sum" else means)[index]
        return (self.temperature * ratio).exp().clamp(max=self.cap)

    def formula(self) -> str:
        return f"min({self.cap:.4g}, {self.level} ratio to reference)"


class Proximal(Gamma):
    """γ = r·1[r < 1 + eps], r = p/π_old(y). Proximal SFT (2508.17784): −min(r, 1 + ε); its lower clip never acts."""

    kind: Literal["proximal"] = "proximal"
    eps: Annotated[float, Field(gt=0, le=10), Searched(0.05, 1.0, log=True)] = 0.28
    """ε, the upper clip of the ratio."""

    masks = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"})

    def bounds(self) -> tuple[float, float]:
        return 0.0, 1 + self.eps

    def _ratio(self, rows: LabelRows) -> Tensor:
        old = rows.given("old_logprobs", "old_logprobs")
        return log_ratio(rows.label_logprobs, old).clamp(max=20).exp()  # clipped at 1 + eps anyway; never overflows

    def statistic(self, rows: LabelRows) -> Tensor:
        ratio = self._ratio(rows)
        return ratio * (ratio < 1 + self.eps)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        return super().label_loss(rows, gamma) if self.modified else -self._ratio(rows).clamp(max=1 + self.eps)

    def formula(self) -> str:
        return f"r·1[r<{1 + self.eps:.4g}]"


class Critical(Gamma):
    """γ = c, the data's mask of critical tokens. CFT (2510.10974)."""

    kind: Literal["critical"] = "critical"

    masks = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"critical"})

    def statistic(self, rows: LabelRows) -> Tensor:
        return rows.given("critical", "critical").to(rows.label_logprobs.dtype)

    def formula(self) -> str:
        return "critical"


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
