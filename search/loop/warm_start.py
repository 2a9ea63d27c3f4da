"""Starting from finished studies: reads their trials, ranks them, and picks the best designs to run early."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id
from ...spaces.search_space import Point
from ...trainers.paths import expanded
from ..store.history import TrialRecord, load_history
from ..store.prior import EarlierDesign, EarlierTrial, Prior
from ..store.study import Study
from ..study.config import StudyConfig
from ..study.config_file import find_study

ORDER = ("infeasible", "paused", "pruned", "complete")
"""States whose trials say something about their design, worst first; a crash says nothing."""


def prior_of(study: Study) -> Prior | None:
    """What `study` takes from earlier ones: as its storage keeps it, else as they stand now; None for a cold start.

    Raises UserError when one of them cannot be read, is the study itself, or has no finished trial.
    """
    settings = study.config.warm_start
    if settings is None or study.config.candidates:
        return None
    if "prior" in study.stored:
        return Prior.model_validate(study.stored["prior"])
    return read_prior(study.config)


def read_prior(config: StudyConfig) -> Prior:
    """The trials of the studies that `config.warm_start` names, as points of `config.space`, and their best designs."""
    assert config.warm_start is not None
    trials: list[EarlierTrial] = []
    designs: list[list[EarlierDesign]] = []
    for index, name in enumerate(config.warm_start.studies):
        earlier, records = _finished(config, name, f"warm_start.studies[{index}]")
        ranked = _ranked(records)
        trials += [
            EarlierTrial(parameters=parameters, rank=rank)
            for record, rank in ranked
            if (parameters := config.space.parameters(_point(config, record))) is not None
        ]
        designs.append(_designs(config, earlier, [record for record, _ in ranked if record.state == "complete"]))
    chosen = _in_turn(designs, config.warm_start.designs)
    return Prior(weight=config.warm_start.weight, trials=tuple(trials), designs=tuple(chosen))


def _finished(config: StudyConfig, name: str, field: str) -> tuple[StudyConfig, list[TrialRecord]]:
    """An earlier study and those of its trials that say something about their design."""
    earlier = find_study(config.base_folder / expanded(name, field))
    if earlier.study_folder == config.study_folder:
        raise UserError(f"`{field}` must be another study, but got {name!r}, which is this one", field=field)
    records = [each for each in load_history(earlier) if each.state in ORDER and each.target is not None]
    if not any(record.state == "complete" for record in records):
        raise UserError(
            f"`{field}` must have a complete trial, but study {earlier.study!r} has none; run it, or leave it out",
            field=field,
        )
    return earlier, records


def _ranked(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    """Trials best first with their ranks in [0, 1]: complete ones by score, then pruned ones, then paused ones, highest
    rungs first, then infeasible ones."""
    keys = [
        (
            ORDER.index(each.state),
            max(each.rungs, default=0) if each.state == "paused" else 0,
            (each.score or 0.0) * (each.state != "infeasible"),
        )
        for each in records
    ]
    below = [sum(other < key for other in keys) + 0.5 * (keys.count(key) - 1) for key in keys]
    ranks = [count / max(1, len(keys) - 1) for count in below]
    return sorted(zip(records, ranks, strict=True), key=lambda pair: (-pair[1], pair[0].number))


def _point(config: StudyConfig, record: TrialRecord) -> Point:
    """The design with a value for every training knob that `config` searches; others stay as the new study has them."""
    assert record.target is not None
    training = {
        name: float(record.training.get(name, config.training.knob(name))) for name in config.space.training_knobs
    }
    return Point(record.target, training)


def _designs(config: StudyConfig, earlier: StudyConfig, best_first: Sequence[TrialRecord]) -> list[EarlierDesign]:
    """Designs that the new study can run and does not run anyway, each target once."""
    known = {canonical_id(baseline.target()) for baseline in config.baseline_settings()}
    found = []
    for record in best_first:
        assert record.target is not None
        if _is_new(record.target, known, config.inputs):
            known.add(canonical_id(record.target))
            point = _point(config, record)
            found.append(
                EarlierDesign(
                    study=earlier.study,
                    title=record.title,
                    target=record.target,
                    training=point.training,
                    parameters=config.space.parameters(point),
                )
            )
    return found


def _is_new(target: TargetSpec, known: Collection[str], inputs: Collection[str]) -> bool:
    return target.needs <= frozenset(inputs) and canonical_id(target) not in known


def _in_turn(designs: Sequence[Sequence[EarlierDesign]], count: int) -> list[EarlierDesign]:
    """The best of each study, then the second of each, and so on: `count` in all, equal targets once."""
    once: dict[str, EarlierDesign] = {}
    for place in range(max(map(len, designs), default=0)):
        for best_first in designs:
            if place < len(best_first):
                once.setdefault(canonical_id(best_first[place].target), best_first[place])
    return list(once.values())[:count]
