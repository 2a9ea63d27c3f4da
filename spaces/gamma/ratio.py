"""Trust from comparisons with other policies, or from a data column. Letters: T tokens, p = π(y)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from ..numerics import log_ratio, power, product, sequence_means
from ..ranges import Searched
from ..rows import LabelRows, Rows
from ..temperature import AdaptiveTemperature
from .base import Gamma, raised

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
    def within_sequence(self) -> bool:
        return True

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
    def within_sequence(self) -> bool:
        return True

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


class Penalty(Gamma):
    """γ = p^exponent + lam·k′: sg(p^exponent)·(−log p) + lam·k, k a divergence from a source seen at the label alone.

    r = log(p_source/p); estimators of KL(π‖source) after Schulman: k2 = r²/2 with k′ = r, and k3 = e^r − 1 − r with
    k′ = e^r − 1. Beyond ±limit k is held still and k′ = 0. γ may be below 0: a label grown too likely is pushed back.
    """

    estimator: Literal["k2", "k3"] = "k3"
    lam: Annotated[float, Field(ge=0, le=1e4), Searched(0.003, 0.3, log=True)] = 0.03
    """λ, the coefficient of the divergence."""
    exponent: Annotated[float, Field(ge=0, le=32)] = 1.0
    limit: Annotated[float, Field(gt=0, le=80)] = 10.0
    """Nats."""
    floor: Annotated[float | None, Field(ge=0, le=1), Searched(0.0, 0.5)] = None
    source: Literal["reference", "teacher", "previous"] = "reference"

    def bounds(self) -> tuple[float, float]:
        least = 1.0 if self.exponent == 0 else 0.0
        if self.lam == 0:
            return least, 1.0
        rise, fall = (math.expm1(self.limit), -1.0) if self.estimator == "k3" else (self.limit, -self.limit)
        return least + self.lam * fall, 1 + self.lam * rise

    def source_logprobs(self, rows: LabelRows) -> Tensor:
        """Log-probability of the label under the source, shape (T,), nats."""
        raise TypeError(f"`{type(self).__name__}` is a base class and asks no source")

    def statistic(self, rows: LabelRows) -> Tensor:
        trusted = power(rows.label_logprobs, self.exponent)
        if self.lam == 0:
            return trusted
        ratio = log_ratio(self.source_logprobs(rows), rows.label_logprobs)
        pull = ratio.clamp(max=self.limit).expm1() if self.estimator == "k3" else ratio
        return trusted + self.lam * pull.masked_fill(ratio.abs() > self.limit, 0)

    def label_loss(self, rows: LabelRows, gamma: Tensor) -> Tensor:
        if self.modified or self.lam == 0:
            return super().label_loss(rows, gamma)
        ratio = log_ratio(self.source_logprobs(rows), rows.label_logprobs).clamp(-self.limit, self.limit)
        divergence = ratio.expm1() - ratio if self.estimator == "k3" else ratio.square() / 2
        return product(power(rows.label_logprobs, self.exponent), -rows.label_logprobs) + self.lam * divergence

    def symbol(self) -> str:
        """The source's probability of the label."""
        return {"reference": "p_ref", "teacher": "p_T", "previous": "p_old"}[self.source]

    def formula(self) -> str:
        pull = f"{self.symbol()}/p−1" if self.estimator == "k3" else f"log {self.symbol()}/p"
        return f"{raised('p', self.exponent)}+{self.lam:.4g}·({pull})"


class LabelPenalty(Penalty):
    """The cheap anchor: no more than the label's log-probability of the source is needed.

    k3 at exponent 1 and 0 are SkyRL's forms of ASFT and SFT + KL, held inside ±10 nats.
    """

    kind: Literal["label_penalty"] = "label_penalty"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs" if self.source == "previous" else self.source} if self.lam else ())

    def source_logprobs(self, rows: LabelRows) -> Tensor:
        if self.source == "previous":
            return rows.given("old_logprobs", "old_logprobs")
        return rows.label_logprobs_of(self.source)


class TemperedPenalty(Penalty):
    """The same against the source at a temperature of its own for each token, which takes the source's whole rows.

    CurioSFT (2602.02244) as its code has it: k2 at exponent 0 and lam 1, without a limit, against a self-teacher that
    follows the student (`previous` of the design); its paper speaks of distillation instead.
    """

    kind: Literal["tempered_penalty"] = "tempered_penalty"
    estimator: Literal["k2", "k3"] = "k2"
    lam: Annotated[float, Field(ge=0, le=1e4), Searched(0.1, 2.0, log=True)] = 1.0
    exponent: Annotated[float, Field(ge=0, le=32)] = 0.0
    limit: Annotated[float, Field(gt=0, le=80)] = 80.0
    """Nats; the widest stands for none."""
    source: Literal["reference", "teacher", "previous"] = "previous"
    temperature: AdaptiveTemperature = AdaptiveTemperature()

    sees = "rows"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.source} if self.lam else ())

    def source_logprobs(self, rows: LabelRows) -> Tensor:
        dense = cast(Rows, rows)
        return self.temperature.label_logprobs(dense.logprobs_of(self.source), dense.given("labels", "student"))

    def formula(self) -> str:
        return f"{super().formula()}, {self.temperature.title()}"


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
