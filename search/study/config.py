"""A study as one YAML file: everything that decides it, validated before anything starts."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ...evaluation.settings import EvaluationSettings
from ...evaluation.statistics.settings import FinalsSettings
from ...spaces import SearchSpace, TargetSpec, presets
from ...spaces.errors import UserError
from ...spaces.search_space.rates import searched_rates
from ...spaces.settings import Settings
from ...trainers.paths import expanded
from ...trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings
from .files import StudyName
from .training_knobs import check_names, check_searched
from .trial import Rung

PUBLISHED = ("sft", "dft", "label_smoothing", "sft_kl", "asft", "kd", "hybrid_kd", "target_sft")
"""Baselines of a study that names none, as far as its inputs allow."""


PAUSES = (1 / 3,)
"""Rungs of a study whose trials pause there: the earliest that was seen to rank designs (`docs/log.md`)."""
DECAY = 0.25
"""How long their weights are trained on before they are scored, in a rung's steps."""


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
    seed: Annotated[int, Field(ge=0)] = 0
    sampler: Literal["tpe", "random", "gp"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] = 10
    """Finished trials, baselines included, before the sampler models anything and the pruner stops anything."""
    pruner: Literal["none", "median", "successive_halving", "hyperband", "asha"] = "median"
    """asha: a trial pauses at each rung, and goes on only if it is promoted; the budget is then the steps of `trials`
    whole trials, and more are begun (rules in `store/halving.py`). The others stop trials for good."""
    rungs: tuple[Annotated[float, Field(gt=0)], ...] = (0.5,)
    """Where a trial is scored on its way: shares of the steps (below 1, also as 1/9) or optimiser steps (1 and
    more). Default: a half, with asha a third."""
    rung_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A rung's score is that of the weights after a further training at a falling learning rate, which is thrown away:
    so many times the rung's steps. Default: none, with asha a quarter."""
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_pruner(cls, given: Any) -> Any:
        pauses = isinstance(given, Mapping) and given.get("pruner") == "asha"
        return {"rungs": PAUSES, "rung_decay": DECAY, **given} if pauses else given

    @field_validator("rungs", mode="before")
    @classmethod
    def _fractions(cls, given: Any) -> Any:
        return [_share(each) for each in given] if isinstance(given, list | tuple) else given

    @property
    def pauses(self) -> bool:
        """Whether trials pause at rungs and are promoted."""
        return self.pruner == "asha"

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
    disk_gigabytes: Annotated[float, Field(ge=0)] = 1.0
    """GiB that must be free in the study's folder for a trial to start; below, the study waits for room."""
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


class StudyConfig(Settings):
    """One study: a model, its data, the space of targets and how they are scored."""

    study: StudyName
    """Name in the storage, and of the study's folder."""
    model: ModelSettings
    teacher: ModelSettings | None = None
    cache: CacheSettings | None = None
    """Ask teacher and reference once, keep their answers on disk for all trials and studies. Default: ask them live."""
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    space: SearchSpace = SearchSpace()
    """Which targets are tried. Parts that are not given shrink to what the study's inputs allow."""
    baselines: tuple[str | BaselineSettings, ...] | None = None
    """Published objectives, run first: a preset's name, or preset, knobs, training. Default: those the inputs allow."""
    warm_start: WarmStartSettings | None = None
    """Finished studies to start from; a list of them, or `studies` with `designs` and `weight`."""
    search: SearchSettings = SearchSettings()
    evaluation: EvaluationSettings
    confirmation: ConfirmationSettings = ConfirmationSettings()
    """Needs `evaluation.report_problems`."""
    candidates: tuple[Candidate, ...] = ()
    """Designs to retrain with fresh seeds, instead of a search: how a confirmation is written down."""
    race: FinalsSettings | None = None
    """Of a confirmation: how its candidates race. None where each had a fixed number of seeds."""
    confirms: ConfirmedSearch | None = None
    """Of a confirmation: the search whose designs it retrains."""
    date: datetime.date | None = None
    """What chat templates print as today, in training and scoring. Default: the day on which the study is created."""
    storage: str | None = None
    """Database URL; default: an SQLite file in the study's folder. `${NAME}` and `${file:PATH}` keep a password out."""
    tracking: TrackingSettings = TrackingSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    """How many devices one trial takes."""
    folder: str | None = None
    """The study's folder; default: runs/<study> beside the YAML file, wherever the command is called from. Like every
    path of the file it may have `~` and `$NAME`, which each host fills in for itself."""
    base: str | None = None
    """Folder that relative paths start from, itself relative to the YAML file's; default: the YAML file's."""

    @property
    def base_folder(self) -> Path:
        return Path(expanded(self.base or ".", "base")).absolute()

    @property
    def study_folder(self) -> Path:
        return self.base_folder / expanded(self.folder or f"runs/{self.study}", "folder")

    @property
    def inputs(self) -> frozenset[str]:
        """What designs of this study may look at."""
        return _inputs({"teacher": self.teacher, "data": self.data})

    @property
    def needs(self) -> frozenset[str]:
        """What the designs that this study may run look at."""
        designs = [baseline.target() for baseline in self.baseline_settings()]
        designs += [candidate.target for candidate in self.candidates]
        return self.space.needs.union(*(design.needs for design in designs))

    @property
    def needs_rows(self) -> frozenset[str]:
        """Of which models some design looks at more than the label's log-probability."""
        return self.space.needs_rows.union(*(baseline.target().needs_rows for baseline in self.baseline_settings()))

    @property
    def in_data(self) -> frozenset[str]:
        """Models that need not be asked, because the data have all that the designs look at."""
        column = self.data.reference_logprob_column is not None
        return frozenset({"reference"} if column and "reference" not in self.needs_rows else ())

    @property
    def objectives(self) -> int:
        """Values of a trial: its score, and, where retention is searched for too, what it did not forget."""
        retention = self.evaluation.retention
        return 2 if retention is not None and retention.role == "objective" else 1

    def with_trials(self, trials: int) -> Self:
        """The same study with another number of slots."""
        return self.model_copy(update={"search": self.search.model_copy(update={"trials": trials})})

    def baseline_settings(self) -> tuple[BaselineSettings, ...]:
        """The baselines in the order of the queue."""
        if self.baselines is None:
            known = (BaselineSettings(preset=name) for name in PUBLISHED if name in presets.names())
            return tuple(baseline for baseline in known if baseline.target().needs <= self.inputs)
        return tuple(BaselineSettings(preset=each) if isinstance(each, str) else each for each in self.baselines)

    @field_validator("space")
    @classmethod
    def _space_fits_inputs(cls, space: SearchSpace, info: ValidationInfo) -> SearchSpace:
        inputs = _inputs(info.data)
        training = info.data.get("training")
        if "training" not in space.model_fields_set and training is not None and training.lora is not None:
            space = space.model_copy(update={"training": {"learning_rate": searched_rates(None, adapters=True)}})
        if space.needs <= inputs:
            return space
        refused = UserError(
            f"`space` must need only what the study has, but {_remedy(space.needs - inputs)}", field="space"
        )
        try:
            fitting = space.for_inputs(inputs)
        except ValueError:  # a part has no family left
            raise refused from None
        if any(getattr(fitting, part) != getattr(space, part) for part in space.asked):
            raise refused
        return fitting

    @model_validator(mode="after")
    def _inputs_are_there(self) -> Self:
        if self.baselines is not None:
            for index, baseline in enumerate(self.baseline_settings()):
                self._check_baseline(baseline, f"baselines[{index}]")
        check_searched(self.space.training, self.training, "space.training")
        if self.objectives > 1 and self.search.pruner != "none":
            raise UserError(
                "`search.pruner` must be none when retention is an objective, which is known at a trial's end only, "
                f"but got {self.search.pruner}",
                field="search.pruner",
            )
        return self

    @model_validator(mode="after")
    def _pausing_trials_are_alike(self) -> Self:
        if not self.search.pauses:
            return self
        if not self.search.rung_steps(self.training.steps):
            raise UserError(
                f"`search.rungs` must name a step below `training.steps` with `pruner: asha`, but got "
                f"{list(self.search.rungs)} and {self.training.steps} steps; lower a rung",
                field="search.rungs",
            )
        if "steps" in self.space.training:
            raise UserError(
                "`space.training.steps` must not be searched with `pruner: asha`, whose budget is in steps of equal "
                "trials; fix it, or take another pruner",
                field="space.training.steps",
            )
        return self

    @model_validator(mode="after")
    def _ranks_share_a_batch(self) -> Self:
        batch, ranks = self.training.effective_batch, self.engine.ranks
        if batch % ranks:
            raise UserError(
                f"`training.effective_batch` must be a multiple of `engine.ranks`, but got {batch} and {ranks}; "
                "change one of them",
                field="training.effective_batch",
            )
        if self.evaluation.backend == "vllm" and ranks > 1:
            raise UserError(
                f"`evaluation.backend` must be another than vllm with `engine.ranks` above 1, but got {ranks} ranks; "
                "use transformers, whose answers all ranks share out",
                field="evaluation.backend",
            )
        return self

    def _check_baseline(self, baseline: BaselineSettings, field: str) -> None:
        try:
            lacking = baseline.target().needs - self.inputs
        except ValueError as error:
            raise UserError(f"`{field}`: {error}", field=field) from None
        if lacking:
            raise UserError(
                f"`{field}` must need only what the study has, but got {baseline.preset!r}, which {_remedy(lacking)}",
                field=field,
            )
        check_names(baseline.training, f"{field}.training")


def _inputs(given: Mapping[str, Any]) -> frozenset[str]:
    """What designs may look at; `given`: fields of the study that have been read."""
    always = {"reference", "previous", "old_logprobs", "sequence_ids"}
    marked = isinstance(given.get("data"), DataSettings) and given["data"].critical_column
    return frozenset(always | ({"teacher"} if given.get("teacher") else set()) | ({"critical"} if marked else set()))


def _remedy(lacking: frozenset[str]) -> str:
    ways = {
        "teacher": "needs a teacher: add `teacher: {path: ...}`, or leave it out",
        "critical": "needs marked spans: add `data.critical_column`, or leave it out",
    }
    return " and ".join(ways.get(each, f"needs {each}, which no study has: leave it out") for each in sorted(lacking))
