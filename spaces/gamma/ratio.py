"""Trust from comparisons with other policies, or from a data column. Letters: T tokens, p = π(y)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..numerics import log_ratio, sequence_means
from ..ranges import Searched
from ..rows import LabelRows
from .base import Gamma

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


class SigmoidRatio(Gamma):
    """γ = β·σ(−β·r), r the log-ratio of student to reference summed over the sequence. MinorSFT (TorchRL).

    From −log σ(β·r) per sequence. The logged value is −γ·log p: the sequence's own has no share for one token.
    """

    kind: Literal["sigmoid_ratio"] = "sigmoid_ratio"
    beta: Annotated[float, Field(gt=0, le=10), Searched(0.01, 1.0, log=True)] = 0.1
    """The authors' default could not be read; this is ours."""

    @property
    def scope(self) -> Literal["token", "batch"]:
        return "batch"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference", "sequence_ids"})

    def bounds(self) -> tuple[float, float]:
        return 0.0, self.beta

    def statistic(self, rows: LabelRows) -> Tensor:
        ratio = log_ratio(rows.label_logprobs, rows.label_logprobs_of("reference"))
        means, index = sequence_means(ratio, rows.given("sequence_ids", "sequence_ids"))
        return self.beta * (-self.beta * (means * index.bincount())).sigmoid()[index]

    def formula(self) -> str:
        return f"{self.beta:.4g}·σ(−{self.beta:.4g}·log-ratio to reference)"


class Gap(Gamma):
    """γ = max(floor, 1 + slope·(p_ref − p)): trust the label more where the student has lost it. sft-lr (token-SFT)."""

    kind: Literal["gap"] = "gap"
    slope: Annotated[float, Field(ge=0, le=10), Searched(0.1, 2.0, log=True)] = 1.0
    floor: Annotated[float, Field(ge=0, le=1), Searched(0.0, 0.5)] = 0.1

    monotone = "decreasing"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference"})

    def bounds(self) -> tuple[float, float]:
        return 1 - self.slope, 1 + self.slope

    def statistic(self, rows: LabelRows) -> Tensor:
        return 1 + self.slope * (rows.label_logprobs_of("reference").exp() - rows.label_probs)

    def formula(self) -> str:
        return f"1+{self.slope:.4g}(p_ref−p)"


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
