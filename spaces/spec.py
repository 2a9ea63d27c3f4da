"""A design as data: its families, outer weight and denominator, and what it needs to look at."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .contrast import EntropyBonus, Gem, Plateau, ReverseKl
from .gamma.base import MODELS
from .gamma.batch import CayleyPower, MedianCap, MedianPower, Rank, SequenceOutlier, TemperedLikelihood
from .gamma.bump import Bump, Information, Margin, Shaping
from .gamma.confidence import Anchored, Constant, Focal, Power, SoftThreshold, Threshold, Tilt
from .gamma.ratio import Critical, Gap, LabelPenalty, LikelihoodRatio, Proximal, SigmoidRatio, TemperedPenalty
from .gamma.shape import ConcentrationPower, Diversity, Mass, SurprisePower, TopkEntropy
from .ranges import Searched
from .residual import Geometric, Mixture, Previous, Reference, Student, Teacher, Uniform
from .settings import GrownSettings, Settings

AnyGamma = (
    Constant
    | Power
    | Threshold
    | SoftThreshold
    | Anchored
    | Bump
    | Shaping
    | Information
    | Margin
    | Focal
    | Tilt
    | TopkEntropy
    | ConcentrationPower
    | SurprisePower
    | Mass
    | Diversity
    | LikelihoodRatio
    | SigmoidRatio
    | Gap
    | LabelPenalty
    | TemperedPenalty
    | Proximal
    | Critical
    | MedianPower
    | SequenceOutlier
    | TemperedLikelihood
    | CayleyPower
    | MedianCap
    | Rank
)
AnyResidual = Student | Uniform | Reference | Previous | Teacher | Geometric | Mixture
AnyContrast = Gem | ReverseKl | Plateau | EntropyBonus


class Weight(Settings):
    """The outer weight w_t = scale·rule.

    unit: 1. anchored: p^α + λ of the anchored family, which makes the loss sg(p^α)·(−log p) + λ·KL (SFT + KL, ASFT).
    trust: the other reading of a re-weighting, w = γ and all mass on the label.
    """

    kind: Literal["unit", "anchored", "trust"] = "unit"
    scale: Annotated[float, Field(gt=0, le=1e6), Searched(0.1, 10.0, log=True)] = 1.0


class PreviousPolicy(Settings):
    """How the previous policy follows the student: previous ← decay·previous + (1 − decay)·student, every few steps."""

    every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between two refreshes; None: as the training is set (`old_policy_every`)."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """0: the student as it was at the last refresh. Above: an exponential moving average."""


class TargetSpec(GrownSettings):
    """One target distribution: where the mass of each token goes, its outer weight, and what a batch is divided by."""

    gamma: Annotated[AnyGamma, Field(discriminator="kind")] = Constant()
    residual: Annotated[AnyResidual, Field(discriminator="kind")] = Student()
    contrast: Annotated[AnyContrast, Field(discriminator="kind")] | None = None
    weight: Weight = Weight()
    denominator: Literal["all", "kept", "weights"] = "all"
    """A batch's summed loss is divided by its valid tokens, by those that carry a gradient, or by the sum of their
    weights."""
    residual_loss: Literal["kl", "ce"] = "kl"
    """Only the logged value of the residual's term: KL(R‖π) or the cross-entropy −ΣR·log π. The gradient is one."""
    previous: PreviousPolicy | None = None
    """Of a design that looks at the previous policy; None: refreshed as the training is set."""

    LATER: ClassVar[frozenset[str]] = frozenset({"previous"})

    @model_validator(mode="after")
    def _weight_has_its_family(self) -> Self:
        if self.weight.kind == "anchored" and not isinstance(self.gamma, Anchored):
            raise ValueError(
                f"the weight rule `anchored` needs the γ family `anchored`, but got {self.gamma.kind!r}; "
                "change the family or use the weight rule `unit`"
            )
        return self

    @model_validator(mode="after")
    def _weights_add_up(self) -> Self:
        if self.denominator == "weights" and self.gamma.ends()[0] < 0:
            raise ValueError(
                f"the denominator `weights` needs a trust that is never below 0, but {self.gamma.title()!r} may be; "
                "set `gamma.floor: 0`, or divide by `all` tokens"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Inputs beyond the student's logits and the labels.

        Any of teacher, reference, previous, old_logprobs, critical, sequence_ids.
        """
        residual = self.residual.needs if self.residual_acts else frozenset()
        contrast = self.contrast.needs if self.contrast and self.contrast_acts else frozenset()
        return self.gamma.needs | residual | contrast

    @property
    def needs_rows(self) -> frozenset[str]:
        """Those of teacher, reference and previous of which more than the label's log-probability is looked at."""
        residual = self.residual.needs if self.residual_acts else frozenset()
        contrast = self.contrast.needs if self.contrast and self.contrast_acts else frozenset()
        return self.gamma.needs_rows | ((residual | contrast) & MODELS)

    def missing(self, available: frozenset[str] | set[str]) -> frozenset[str]:
        """Which of the inputs that the design needs are not in `available`."""
        return self.needs - available

    @property
    def residual_acts(self) -> bool:
        """Whether any mass can reach the residual, and moves the student if it does."""
        return not (self.gamma.ends() == (1, 1) or self.residual.student_share == 1 or self.weight.kind == "trust")

    @property
    def contrast_acts(self) -> bool:
        """Whether there is a signed term that is not zero."""
        return self.contrast is not None and self.contrast.acts

    def at(self, progress: float) -> TargetSpec:
        """The design in force at `progress` ∈ [0, 1] of the training; itself when nothing is scheduled."""
        if not 0 <= progress <= 1:
            raise ValueError(f"`progress` must be in [0, 1], but got {progress}")
        if self.gamma.schedule is None:
            return self
        mix = self.gamma.mix * self.gamma.schedule.share(progress)
        gamma = self.gamma.model_copy(update={"schedule": None, "mix": mix})
        return self.model_copy(update={"gamma": gamma})

    def title(self) -> str:
        """The design in one line."""
        parts = [f"γ = {self.gamma.title()}", f"R = {self.residual.title()}" if self.residual_acts else ""]
        parts.append(self.contrast.title() if self.contrast else "")
        if self.weight.kind != "unit":
            parts.append(f"w = {self.weight.kind}")
        if self.weight.scale != 1:
            parts.append(f"scale {self.weight.scale:.4g}")
        if self.denominator != "all":
            parts.append(f"per {self.denominator}")
        return "; ".join(part for part in parts if part)
