"""A study as one YAML file: everything that decides it, validated before anything starts."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ...evaluation.settings import EvaluationSettings
from ...evaluation.statistics.settings import FinalsSettings
from ...spaces import SearchSpace, presets
from ...spaces.errors import UserError
from ...spaces.search_space.rates import searched_rates
from ...spaces.settings import Settings
from ...trainers.paths import expanded
from ...trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings
from .files import StudyName
from .parts import (
    BaselineSettings,
    Candidate,
    ConfirmationSettings,
    ConfirmedSearch,
    EngineSettings,
    LimitSettings,
    SearchSettings,
    TrackingSettings,
    WarmStartSettings,
    with_lengths,
    with_pruner,
)
from .training_knobs import check_names, check_searched

PUBLISHED = ("sft", "dft", "label_smoothing", "sft_kl", "asft", "kd", "hybrid_kd", "target_sft")
"""Baselines of a study that names none, as far as its inputs allow."""
WHOLE = 3
"""Trials of a study too short to stop any of them: one of three goes on from a rung."""


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
    full_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps of the training that the winner is for. Unless the file says otherwise, trials train a third of
    them (`training.steps`), the longer runs of a confirmation twice as long; `export` passes it on."""
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

    @model_validator(mode="before")
    @classmethod
    def _rest_follows(cls, given: Any) -> Any:
        return with_pruner(with_lengths(given)) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _trials_are_no_longer(self) -> Self:
        if self.full_steps is not None and self.full_steps < self.training.steps:
            raise UserError(
                f"`full_steps` must be at least `training.steps`, but got {self.full_steps} and {self.training.steps}; "
                "leave `training.steps` out, or lower it",
                field="full_steps",
            )
        return self

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
        """The same study, run for so many slots: the first of its queue, or a longer queue."""
        return self.of_length(max(trials, self.search.trials), trials)

    def of_length(self, trials: int, stop_after: int | None = None) -> Self:
        """The same study with a queue of so many slots."""
        length = {"trials": trials, "stop_after": stop_after}
        return self.model_copy(update={"search": self.search.model_copy(update=length)})

    def baseline_settings(self) -> tuple[BaselineSettings, ...]:
        """The baselines in the order of the queue."""
        if self.baselines is None:
            known = (BaselineSettings(preset=name) for name in PUBLISHED if name in presets.names())
            return tuple(baseline for baseline in known if baseline.target().needs <= self.inputs)
        return tuple(BaselineSettings(preset=each) if isinstance(each, str) else each for each in self.baselines)

    @property
    def pauses(self) -> bool:
        """Whether trials pause at rungs and are promoted; not where a study draws no design, or is very short."""
        return self.search.pruner == "asha" and self.search.trials > max(WHOLE, len(self.baseline_settings()))

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
        if not self.pauses:
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
