"""What a study's trials came to, for tables, reports and exports. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ...evaluation.statistics.racing import predictions
from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ..study.config import StudyConfig
from ..study.config_file import read_folder
from ..study.events import TrialState as EndState
from ..study.trial import TrialFolder, trial_folder
from .halving import GRANTED, PAUSED, paused_at
from .slots import RERUN_OF, RIVAL, SFT, by_hand, published_as, slots_of
from .storage import open_storage
from .study import storage_url

State = Literal["waiting", "running", "paused", "complete", "pruned", "infeasible", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One slot of the queue."""

    number: int
    title: str
    state: State
    target: TargetSpec | None
    """None while the slot waits to be filled."""
    baseline: str | None
    """Preset of a published objective that the study started with, or tuned."""
    training: Mapping[str, Any]
    """Searched training settings, e.g. learning_rate; empty while the slot waits to be filled."""
    parameters: Mapping[str, Any]
    """What the sampler sees."""
    score: float | None
    """Average@k on the search problems, or on the first of them at the last rung of a pruned or paused trial; an
    infeasible trial has one when it was scored and forgot too much."""
    standard_error: float | None
    seconds: float | None
    """Wall time over all attempts."""
    verdicts: Mapping[str, int]
    rungs: Mapping[int, float]
    """Score by optimiser step."""
    attempts: int
    chain: Sequence[Mapping[str, str]]
    """Why each earlier attempt ended, and when."""
    same_as: int | None
    """Number of the finished trial with the same gradient whose result this slot was credited with."""
    failure: Mapping[str, str] | None
    """Kind and message."""
    folder: Path
    spec_id: str | None = field(default=None)
    race: Mapping[str, Any] | None = field(default=None)
    """The last look of a race, and the number of the trial it ran against."""
    retention: Mapping[str, Any] | None = field(default=None)
    """What the trial kept of what the base could: name, value, standard error, unit, direction, forgotten."""
    rerun_of: int | None = field(default=None)
    """Number of the failed trial that this one runs again, in its place."""
    by_hand: bool = field(default=False)
    """Whether it was put in on top of the budget."""
    replicate: int | None = field(default=None)
    """Of a confirmation: the number of its fresh seed."""
    candidate: str | None = field(default=None)
    """Of a confirmation: whose replicate it is."""
    longer: float | None = field(default=None)
    """Of a confirmation: at how many times the search's steps; None at that length itself."""
    rival: bool = field(default=False)
    """Whether it tunes a published objective."""
    granted: int | None = field(default=None)
    """Where trials pause: the optimiser step to which it may train, or has."""
    repeat: int | None = field(default=None)
    """Number of the other seed with which plain SFT was trained once more, to learn how far runs differ."""
    repeated: tuple[float, ...] = field(default=())
    """Scores of its repetitions with other seeds."""

    @property
    def finished(self) -> bool:
        return self.state not in ("waiting", "running", "paused")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        target = None if self.target is None else self.target.model_dump(mode="json")
        return {**vars(self), "target": target, "folder": str(self.folder), "rungs": dict(self.rungs)}


def load_history(study: StudyConfig | Path | str) -> list[TrialRecord]:
    """Records of all slots, in the order of the queue. `study`: a configuration or a study's folder.

    Raises UserError when the folder, the storage or the study is not there.
    """
    config = study if isinstance(study, StudyConfig) else read_folder(Path(study))
    with closing(open_storage(storage_url(config), config.study, reading=True)) as storage:
        try:
            loaded = optuna.load_study(study_name=config.study, storage=storage.backend)
        except KeyError:
            raise UserError(
                f"study {config.study!r} must exist, but {storage.shown} has no such study; run it first"
            ) from None
        return read_records(slots_of(loaded.get_trials(deepcopy=False)), config.study_folder)


def read_records(trials: Iterable[FrozenTrial], folder: Path) -> list[TrialRecord]:
    """Records of Optuna's trials, their designs read from the trial folders."""
    records = [_record(trial, folder) for trial in trials]
    again = [each for each in records if each.repeat is not None and each.state == "complete"]
    return [replace(each, repeated=_repeated(each, again)) if each.baseline == SFT else each for each in records]


def _repeated(record: TrialRecord, again: Iterable[TrialRecord]) -> tuple[float, ...]:
    scores = (each.score for each in again if record.repeat is None and each.training == record.training)
    return tuple(score for score in scores if score is not None)


def best(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest score; the first of equals. Other seeds of plain SFT are no designs."""
    complete = [record for record in records if is_scored(record)]
    return max(complete, key=lambda record: (record.score or 0.0, -record.number), default=None)


def is_scored(record: TrialRecord) -> bool:
    """Whether it is a design of the search with a score of all search problems."""
    return record.state == "complete" and record.score is not None and record.repeat is None


def front(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials that none beats in both score and retention (Pareto), best score first; empty without retention.

    Of trials equal in both, the first.
    """
    measured = [record for record in records if is_scored(record) and record.retention is not None]
    ranked = sorted(measured, key=lambda r: (-(r.score or 0.0), _forgotten(r), r.number))
    kept: list[TrialRecord] = []
    for record in ranked:
        if not kept or _forgotten(record) < _forgotten(kept[-1]):
            kept.append(record)
    return kept


def _forgotten(record: TrialRecord) -> float:
    return 0.0 if record.retention is None else float(record.retention["forgotten"])


def opponents(trials: Iterable[FrozenTrial], folder: Path, preset: str | None = None) -> dict[str, Any] | None:
    """What a trial races against: number and item scores of the best complete trial, and what all of them predict.

    A published objective (`preset`) races against published ones only, plain SFT against itself: the best of each kind
    is what designs are compared with, and has a score of all problems. None without a complete trial, or when the
    best one's files are elsewhere.
    """
    records = [record for record in read_records(trials, folder) if _is_opponent(record, preset)]
    complete = [record for record in records if record.state == "complete" and record.same_as is None]
    scores = {record.number: _item_scores(record) for record in complete}
    winner = best(complete)
    incumbent = None if winner is None else scores[winner.number]
    if winner is None or incumbent is None:
        return None
    known = [found for found in scores.values() if found is not None and len(found) == len(incumbent)]
    return {"number": winner.number, "incumbent": incumbent, "reference": predictions(known, incumbent).tolist()}


def _is_opponent(record: TrialRecord, preset: str | None) -> bool:
    if preset is None:
        return True
    return record.baseline is not None and (record.baseline == SFT) == (preset == SFT)


def _item_scores(record: TrialRecord) -> list[float] | None:
    return (TrialFolder(record.folder).result or {}).get("item_scores")


def plain_sft(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial of the plain SFT baseline whose training knobs promise most, what a winner is compared with: even one
    that forgot too much."""
    own = [record for record in records if record.baseline == SFT]
    scored = [record for record in own if record.state == "infeasible" and record.score is not None]
    return tuned(own) or max(scored, key=lambda record: (record.score or 0.0, -record.number), default=None)


def tuned(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Of the complete trials of one objective, that of the training knobs which promise most.

    Knobs that were trained with several seeds count with the mean of all of them, and means are drawn together as far
    as runs of the same knobs differ (`stats.shrink`), so that one lucky run does not outweigh three.
    """
    complete = [record for record in records if is_scored(record)]
    if not complete:
        return None
    runs = [np.array([record.score, *record.repeated]) for record in complete]
    means, counts = np.array([each.mean() for each in runs]), np.array([len(each) for each in runs])
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in runs)
    promised = means
    if squares and len(runs) > 1:
        from ...evaluation.statistics.stats import shrink  # scipy: not for every look at a study

        promised = shrink(means, np.sqrt(squares / (counts.sum() - len(runs)) / counts)).estimates
    order = range(len(complete))
    return complete[max(order, key=lambda k: (promised[k], counts[k], means[k], -complete[k].number))]


def _record(trial: FrozenTrial, study_folder: Path) -> TrialRecord:
    facts = trial.user_attrs
    folder = trial_folder(study_folder, trial.number).path
    same_as = facts.get("same_as")
    target = facts.get("target")
    state = _state(trial)
    return TrialRecord(
        number=trial.number,
        title=str(facts.get("title") or facts.get("baseline") or "-"),
        state=state,
        target=None if target is None else TargetSpec.model_validate(target),
        baseline=published_as(facts),
        training=facts.get("training", {}),
        parameters=trial.params,
        score=_score(trial, state),
        standard_error=facts.get("standard_error"),
        seconds=facts.get("seconds"),
        verdicts=facts.get("verdicts", {}),
        rungs=trial.intermediate_values,
        attempts=int(facts.get("attempts", 0)),
        chain=facts.get("chain", []),
        same_as=same_as,
        failure=facts.get("failure"),
        folder=folder if same_as is None else trial_folder(study_folder, same_as).path,
        spec_id=facts.get("spec_id"),
        race=facts.get("race"),
        retention=facts.get("retention"),
        rerun_of=facts.get(RERUN_OF),
        by_hand=by_hand(trial),
        replicate=facts.get("replicate"),
        candidate=facts.get("candidate"),
        longer=facts.get("longer"),
        rival=isinstance(facts.get(RIVAL), str),
        repeat=facts.get("repeat"),
        granted=facts.get(GRANTED),
    )


def _score(trial: FrozenTrial, state: State) -> float | None:
    if state == "paused":
        return trial.intermediate_values.get(trial.user_attrs[PAUSED])
    return trial.values[0] if trial.values and _has_score(state, trial.user_attrs) else None


def _has_score(state: State, facts: Mapping[str, Any]) -> bool:
    """A trial that ran out of memory or diverged is told a value that nothing has measured."""
    return state in ("complete", "pruned") or (state == "infeasible" and "retention" in facts)


def end_state(trial: FrozenTrial) -> EndState:
    """State of a finished trial as events name it."""
    names: dict[State, EndState] = {"complete": "complete", "pruned": "pruned", "infeasible": "infeasible"}
    return names.get(_state(trial), "failed")


def _state(trial: FrozenTrial) -> State:
    if trial.state.is_finished() and any(value > 0 for value in trial.constraints.values()):
        return "infeasible"
    if paused_at(trial) is not None:
        return "paused"
    names: dict[TrialState, State] = {
        TrialState.WAITING: "waiting",
        TrialState.RUNNING: "running",
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return names[trial.state]
