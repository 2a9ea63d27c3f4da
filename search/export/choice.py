"""Which design an export takes: the confirmation's winner, or on request the best of the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...spaces.errors import UserError
from ...spaces.target import TargetSpec
from ...trainers.settings import TrainingSettings
from ..confirmation.candidates import SFT
from ..loop.confirm import stored_verdict
from ..store.history import TrialRecord, best
from ..study.config import StudyConfig
from ..study.files import read_json
from ..terminal.verdict import answers

REFUSAL = (
    "an export needs a confirmed winner, but this study has no finished confirmation: the best of many trials is "
    "partly luck; run `qtarget confirm`, or pass `--unconfirmed` to export the best trial of the search"
)


@dataclass(frozen=True)
class Winner:
    """What is exported."""

    title: str
    target: TargetSpec
    training: TrainingSettings
    record: TrialRecord | None
    """Its trial; None for a published design that only the confirmation trained."""
    comparison: Mapping[str, Any] | None
    """What the newest confirmation says of it; of plain SFT, which everything is compared with, no effect."""
    best_search: TrialRecord
    """The trial with the best search score, which may be another one."""

    @property
    def confirmed(self) -> bool:
        return self.comparison is not None and self.comparison["outcome"] == "better than SFT"


def choose(config: StudyConfig, records: list[TrialRecord], *, unconfirmed: bool) -> Winner:
    """The confirmation's winner; plain SFT, tuned, where it found nothing better.

    The confirmation has the last word: fresh seeds and untouched problems speak for a design, the best score of many
    is partly luck. Where it has no winner, `unconfirmed` takes the best trial of the search. Raises UserError where
    nothing was confirmed and `unconfirmed` is not asked for.
    """
    top = best(records)
    if top is None:
        states = ", ".join(sorted({record.state for record in records})) or "none at all"
        raise UserError(
            f"an export needs a complete trial, but study {config.study!r} has only these states: {states}; "
            "run it first with `qtarget run`"
        )
    verdict = stored_verdict(config)
    if verdict is not None and verdict["winner"] is not None:
        return _confirmed(config, records, verdict, top, verdict["winner"])
    if not unconfirmed:
        if verdict is None or verdict["undecided"]:
            raise UserError(REFUSAL)
        return _confirmed(config, records, verdict, top, SFT)
    title = SFT if top.baseline == SFT else f"trial {top.number}: {top.title}"
    assert top.target is not None
    found = _comparison(verdict, title)
    return Winner(title, top.target, _training(config, top.training), top, found, top)


def _confirmed(
    config: StudyConfig, records: list[TrialRecord], verdict: Mapping[str, Any], top: TrialRecord, title: str
) -> Winner:
    candidate = next(each for each in verdict["candidates"] if each["title"] == title)
    trial = candidate.get("trial")
    numbers = [each for each in records if each.number == trial or title.startswith(f"trial {each.number}: ")]
    return Winner(
        title=title,
        target=TargetSpec.model_validate(candidate["target"]),
        training=_training(config, candidate["training"]),
        record=numbers[0] if numbers else None,
        comparison=_comparison(verdict, title),
        best_search=top,
    )


def _comparison(verdict: Mapping[str, Any] | None, title: str) -> Mapping[str, Any] | None:
    if verdict is None:
        return None
    found = next((each for each in verdict["comparisons"] if each["title"] == title), None)
    if title == SFT:
        found = {"title": SFT, "outcome": verdict["outcome"], "seeds": verdict["seeds"]}
    if found is None:
        return None
    asked = {name: verdict[name] for name in ("problems", "against_published", "lasting", "undecided")}
    return {**found, **asked, "answers": answers(verdict)}


def _training(config: StudyConfig, searched: Mapping[str, Any]) -> TrainingSettings:
    return config.training.with_knobs(searched)


def spec_of(config: StudyConfig, winner: Winner) -> dict[str, Any]:
    """The stored spec of the winner's trial, or of the best one where the confirmation alone has trained it."""
    record = winner.record or winner.best_search
    spec = read_json(record.folder / "spec.json")
    if spec is None:
        raise UserError(f"trial {record.number} must have its spec, but {record.folder}/spec.json is gone; restore it")
    return spec
