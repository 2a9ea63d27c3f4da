"""The parts of a study's file beside its model, data and space: how it searches, confirms, tracks and gives up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...spaces import TargetSpec, presets
from ...spaces.settings import Settings
from .trial import Rung

SEARCHED = 3
"""Of a full training's steps a trial has one in so many: shorter ones were seen to mislead (`docs/log.md`)."""


def _share(given: Any) -> Any:
    """A number as it is; one written as a fraction, `1/9`, as a number."""
    if not isinstance(given, str):
        return given
    try:
        return float(Fraction(given.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        return given  # which the field refuses


class EngineSettings(Settings):
    """How many devices one trial takes."""

    ranks: Annotated[int, Field(ge=1)] = 1
    """Processes that train one model together, each on its own device; on the CPU where there is none."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every rank holds the whole model. fsdp: each holds a share of weights, gradients and AdamW's state."""


class BaselineSettings(Settings):
    """A published objective to run before the sampler starts."""

    preset: str
    knobs: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, float] = Field(default_factory=dict)
    """Training knobs of the search space that differ from `training`, e.g. learning_rate."""

    def target(self) -> TargetSpec:
        return presets.get(self.preset, **self.knobs)


class SearchSettings(Settings):
    """How the space is searched."""

    trials: Annotated[int, Field(ge=1)] = 20
    """Slots of the queue, baselines included."""
    stop_after: Annotated[int, Field(ge=1)] | None = None
    """So many of these slots are run now, as with `run --trials`; what is in the others, and whether trials pause, does
    not depend on it. Default: all."""
    seed: Annotated[int, Field(ge=0)] = 0
    sampler: Literal["tpe", "random", "gp"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] = 10
    """Finished trials, baselines included, before the sampler models anything and a median stops anything."""
    pruner: Literal["none", "median", "successive_halving", "hyperband", "asha"] = "asha"
    """asha: a trial pauses at each rung, and goes on only if it is promoted; the budget is then the steps of `trials`
    whole trials, and more are begun (rules in `store/halving.py`). The others stop trials for good. Default where
    trials cannot pause: median if `space.training.steps` is searched, else none."""
    rungs: tuple[Annotated[float, Field(gt=0)], ...] = (1 / 3,)
    """Where a trial is scored on its way: shares of the steps (below 1, also as 1/9) or optimiser steps (1 and
    more). Default: a third, the earliest that was seen to rank designs (`docs/performance.md`)."""
    rung_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A rung's score is that of the weights after a further training at a falling learning rate, which is thrown away:
    so many times the rung's steps. Default: none, which finds as much for the same steps."""
    rung_problems: Annotated[float, Field(gt=0)] = 0.5
    """Search problems scored at a rung, always the first ones: a share (up to 1) or a number (above 1)."""
    anchors: Literal["sft", "published"] = "sft"
    """Baselines that are trained and scored whole also with `asha` or racing, because others are compared with them:
    plain SFT, or all that are published (for `compare` across studies). Other baselines pause, race and go on among
    themselves, the best of them to its end."""
    rivals: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the slots after the baselines that tune plain SFT and the published objectives over the same training
    knobs as the designs; 0: each runs as the study's file says."""
    repeats: Annotated[int, Field(ge=0)] = 2
    """Plain SFT is trained so many times more at the start, with other seeds: how far runs of one design differ. Only
    where a confirmation follows, and at most a fifth of the slots after the baselines."""

    @field_validator("rungs", mode="before")
    @classmethod
    def _fractions(cls, given: Any) -> Any:
        return [_share(each) for each in given] if isinstance(given, list | tuple) else given

    @property
    def slots(self) -> int:
        """How many of the queue's slots are run now."""
        return min(self.trials, self.stop_after or self.trials)

    @property
    def goes_further(self) -> bool:
        """Whether slots are left for a later call."""
        return self.slots < self.trials

    def rungs_of(self, steps: int, problems: int) -> tuple[Rung, ...]:
        """The rungs of a trial of so many optimiser steps, scored on the first of `problems`."""
        scored, share = self.rung_problem_count(problems), self.rung_decay
        return tuple(
            Rung(step=step, problems=scored, decay_steps=min(steps - step, math.ceil(share * step)))
            for step in self.rung_steps(steps)
        )

    def rung_steps(self, steps: int) -> tuple[int, ...]:
        """Rungs in optimiser steps, rising, before the last step; none without a pruner."""
        if self.pruner == "none":
            return ()
        found = {max(1, round(rung * steps)) if rung < 1 else int(rung) for rung in self.rungs}
        return tuple(sorted(step for step in found if step < steps))

    def rung_problem_count(self, problems: int) -> int:
        """How many of `problems` are scored at a rung."""
        share = self.rung_problems
        return max(1, min(problems, round(share * problems) if share <= 1 else int(share)))


class WarmStartSettings(Settings):
    """Finished studies to start from: their best designs run early, their trials inform the sampler with a discount."""

    studies: tuple[str, ...] = Field(min_length=1)
    """Folders or YAML files of studies, from any model and data set; they are read once, when this study is created."""
    designs: Annotated[int, Field(ge=0)] = 3
    """Best of their designs that run right after the baselines."""
    weight: Annotated[float, Field(ge=0)] = 5.0
    """How many own trials all earlier ones together count for (rule in `prior.py`); 0: the sampler ignores them."""

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_its_studies(cls, given: Any) -> Any:
        return {"studies": given} if isinstance(given, list | tuple) else given


class TrackingSettings(Settings):
    """MLflow. A tracking server that is down never fails a trial."""

    uri: str | None = None
    """Default: MLFLOW_TRACKING_URI, else an SQLite file in the study's folder. `none` switches tracking off."""
    experiment: str | None = None
    """Default: the names of model and data set."""


class LimitSettings(Settings):
    """When a trial is given up."""

    trial_minutes: Annotated[float, Field(gt=0)] | None = None
    """Training and evaluation together; a trial past it is infeasible."""
    silence_minutes: Annotated[float, Field(gt=0)] = 30.0
    """An engine that reports no step and no problem for so long is taken for dead."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Crashes of the engine in one trial, without a new checkpoint in between, before the trial is failed."""
    disk_gigabytes: Annotated[float, Field(ge=0)] | None = None
    """GiB that must be free in the study's folder for a trial to start; below, checkpoints of paused trials make way,
    and then the study waits for room. Default: a checkpoint for each engine, one for what it replaces, and one GiB."""
    lease_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A supervisor on another host that is silent for so long has lost its trials."""


class ConfirmationSettings(Settings):
    """How the best designs are confirmed: retrained with fresh seeds, scored on the untouched report problems."""

    automatic: bool = True
    """Confirm as soon as a search ends, if `evaluation.report_problems` are kept; else only on `qtarget confirm`."""
    detect: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Smallest lead worth finding, 0.03 is three points; default: what a usual number of trainings can find."""
    power: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With which probability it is to be found; the cheapest race that does so is run."""
    seeds: Annotated[int, Field(ge=2)] | None = None
    """Most fresh seeds of a candidate, the same ones for all; default: as many as the two above ask for."""
    designs: Annotated[int, Field(ge=1)] = 2
    """Best designs of the search, compared with plain SFT and the best published objective."""
    longer: Annotated[float, Field(gt=1)] | None = 2.0
    """Winner and rivals are also trained at so many times the steps, to see whether the lead lasts; none: not."""
    longer_seeds: Annotated[int, Field(ge=2)] = 3
    """Most fresh seeds of each of these."""


class Candidate(Settings):
    """A design under confirmation."""

    title: str
    target: TargetSpec
    training: dict[str, float] = Field(default_factory=dict)
    role: Literal["sft", "published", "design"] = "design"
    """Plain SFT, the best published objective, or what the search found."""
    trial: int | None = None
    """Number of its best trial in the search."""


class ConfirmedSearch(Settings):
    """What a confirmation is held against."""

    fingerprints: dict[str, str]
    """Content of model, data and problems as the search found them."""
    report_problems: int
    """As the search had it: what decides which problems its trials saw."""


def with_lengths(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a study's file says, with the steps that follow from `full_steps` where it says none."""
    full, training, confirmation = given.get("full_steps"), given.get("training", {}), given.get("confirmation", {})
    if type(full) is not int or full < 1 or not isinstance(training, Mapping) or not isinstance(confirmation, Mapping):
        return given  # nothing to do, or for the fields to refuse
    training = {"steps": max(1, round(full / SEARCHED)), **training}
    steps = training["steps"]
    if type(steps) is int and 0 < steps <= full:
        longer = max(full / SEARCHED, min(full, 2 * steps)) / steps
        confirmation = {"longer": round(longer, 4) if longer > 1 else None, **confirmation}
    return {**given, "training": training, "confirmation": confirmation}


def with_pruner(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a study's file says, with the pruner of one that says none and whose trials cannot pause."""
    search, space, training = (given.get(name, {}) for name in ("search", "space", "training"))
    if not all(isinstance(each, Mapping) for each in (search, space, training)) or "pruner" in search:
        return given
    knobs, evaluation = space.get("training"), given.get("evaluation")
    retention = evaluation.get("retention") if isinstance(evaluation, Mapping) else None
    if training.get("steps") == 1 or (isinstance(retention, Mapping) and retention.get("role") == "objective"):
        found = "none"
    elif isinstance(knobs, Mapping) and "steps" in knobs:
        found = "median"
    else:
        return given
    return {**given, "search": {**search, "pruner": found}}


def shortness(full_steps: int | None, steps: int) -> str | None:
    """Why trials of so many steps may mislead about a full training, in a sentence; None where nothing speaks so."""
    if full_steps is None or round(full_steps / SEARCHED) <= steps:
        return None
    whole = round(full_steps / SEARCHED)
    return (
        f"a trial has {steps} of {full_steps} steps (`full_steps`): less than a third may rank designs otherwise than "
        "the full training does: those that lean on a teacher or on the base learn fast and end lower, and learning "
        "rates that are too high or too low for few steps catch up. Leave "
        f"`training.steps` out for {whole}, or see whether the confirmation says that the lead lasts"
    )
