"""What people put into a queue by hand: designs of their own, and failed trials once more.

Both work on a study that runs as on one that is stopped: whoever has a free engine takes them next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, ValidationError

from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...spaces.search_space import Point
from ...spaces.settings import Settings
from ..store.queue import Queue
from ..store.slots import ADDED, Slot, again, can_run_again
from ..store.storage import open_storage
from ..store.study import searched, storage_url
from ..study.config import StudyConfig
from ..study.faults import refusal
from ..study.parts import BaselineSettings
from ..study.training_knobs import check_names, check_searched

LOADED = frozenset({"teacher", "reference"})
"""Inputs that an engine has loaded only if some design of its study's file looks at them."""


class Design(Settings):
    """A design to add: a published objective, a target, or parameters of the searched space."""

    preset: str | None = None
    knobs: dict[str, Any] = Field(default_factory=dict)
    """Of the preset."""
    target: TargetSpec | None = None
    parameters: dict[str, float | int | str] | None = None
    """As `status --json` and Optuna name them; the sampler draws those that are left out."""
    training: dict[str, float] = Field(default_factory=dict)
    """Searched training settings, where they are not as in the study's file."""


@dataclass(frozen=True)
class Added:
    """A design in the queue."""

    number: int
    title: str
    inside: bool
    """Whether it is a point of the searched space, so that the sampler learns from it."""


def read_design(read: Mapping[str, Any], source: str) -> Design:
    """The design that plain data describe; of a winner.yaml, its target and training.

    Raises UserError for anything else.
    """
    known = dict(read)
    if "provenance" in read:  # of everything in a winner.yaml, what a search may choose
        rate = (read.get("training") or {}).get("learning_rate")
        known = {"target": read.get("target"), "training": {} if rate is None else {"learning_rate": rate}}
    try:
        design = Design.model_validate(known)
    except ValidationError as error:
        raise refusal(error, source, known, Design) from None
    ways = [name for name in ("preset", "target", "parameters") if getattr(design, name) is not None]
    if len(ways) != 1:
        raise UserError(
            f"{source}: a design must be given by one of `preset`, `target` and `parameters`, but got "
            f"{' and '.join(ways) or 'none'}; see `qtarget presets`"
        )
    return design


def add(config: StudyConfig, design: Design) -> Added:
    """Put a design into the queue of a study, on top of its budget.

    Raises UserError for a study that is not there, and a design that it cannot run.
    """
    search = searched(config)
    slot, title = _slot(search.config, design)
    with _queue(search.config) as queue:
        (number,) = queue.put(lambda slots: [slot])
    return Added(number, title, inside=bool(slot.parameters))


def rerun(config: StudyConfig, numbers: Collection[int] = ()) -> dict[int, int]:
    """Run all failed trials of a study once more, or those of `numbers`; from their numbers to those they have now.

    Raises UserError for a trial that is not there, or has a score.
    """
    chosen: list[FrozenTrial] = []

    def choose(slots: list[FrozenTrial]) -> list[Slot]:
        known = {trial.number: trial for trial in slots}
        for number in numbers:
            _refuse_scored(number, known)
        chosen.extend([known[n] for n in dict.fromkeys(numbers)] if numbers else filter(can_run_again, slots))
        return [again(trial) for trial in chosen]

    with _queue(searched(config).config) as queue:
        new = queue.put(choose)
    return dict(zip((trial.number for trial in chosen), new, strict=True))


@contextmanager
def _queue(config: StudyConfig) -> Iterator[Queue]:
    with closing(open_storage(storage_url(config), config.study)) as storage:
        yield Queue(config, storage)


def _refuse_scored(number: int, known: Mapping[int, FrozenTrial]) -> None:
    trial = known.get(number)
    if trial is None:
        raise UserError(f"the trial to run again must be one of the study, but it has no trial {number}")
    infeasible = any(value > 0 for value in trial.constraints.values())
    if trial.state != TrialState.FAIL and not (trial.state == TrialState.COMPLETE and infeasible):
        raise UserError(
            f"a trial to run again must have failed or be infeasible, but trial {number} is "
            f"{trial.state.name.lower()}; `qtarget reproduce` repeats one that has a score"
        )


def _slot(config: StudyConfig, design: Design) -> tuple[Slot, str]:
    """The slot of a design, and what it is called."""
    if config.candidates:
        raise UserError(
            "a design must be added to a search, but this is a confirmation; name the study that it confirms"
        )
    if design.parameters is not None:
        return _point(config, design)
    target = _target(design)
    _refuse_needs(config, target)
    check_names(design.training, "training")
    check_searched(dict(design.training), config.training, "training")
    training = {name: config.training.knob(name) for name in config.space.training_knobs} | design.training
    parameters = config.space.parameters(Point(target, training))
    facts = {ADDED: True, "target": target.model_dump(mode="json"), "training": training}
    facts |= {"baseline": design.preset} if design.preset else {}
    return Slot(parameters or {}, facts), design.preset or target.title()


def _target(design: Design) -> TargetSpec:
    if design.preset is None:
        assert design.target is not None
        return design.target
    try:
        return BaselineSettings(preset=design.preset, knobs=design.knobs).target()
    except ValueError as error:
        raise UserError(f"a design must be known: {error}", field="preset") from None


def _point(config: StudyConfig, design: Design) -> tuple[Slot, str]:
    parameters = dict(design.parameters or {}) | {f"training.{name}": each for name, each in design.training.items()}
    if faults := config.space.faults(parameters):
        raise UserError(f"a design must lie in the searched space, but {'; '.join(faults)}", field="parameters")
    return Slot(parameters, {ADDED: True}), ", ".join(f"{name} = {value}" for name, value in parameters.items())


def _refuse_needs(config: StudyConfig, target: TargetSpec) -> None:
    lacking = (target.needs - config.inputs) | ((target.needs & LOADED) - config.needs)
    if lacking:
        raise UserError(
            f"a design must need only what trials of the study have at hand, but this one needs "
            f"{', '.join(sorted(lacking))}, at which no design of its file looks; start another study whose `space` or "
            "`baselines` do"
        )
