"""What a comparison needs of each study: its designs at their best learning rate, and the score of every problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import UserError
from ...spaces.identity import canonical_id
from ..confirmation.race import problem_scores
from ..loop.confirm import stored_verdict
from ..store.history import TrialRecord, load_history
from ..store.study import searched
from ..study.campaign_config import load_campaign
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pair:
    """One study as a comparison sees it."""

    study: str
    designs: Mapping[str, TrialRecord]
    """The best complete trial of each design, by canonical id."""
    scores: Mapping[str, Array]
    """Score of every search problem (problems,), by canonical id; problems in one order."""
    verdict: Mapping[str, Any] | None
    """Of the study's newest confirmation."""
    note: str | None = None
    """What of the study's file has changed since it was searched."""

    @property
    def problems(self) -> int:
        return len(next(iter(self.scores.values())))

    def best(self) -> str:
        return max(self.designs, key=lambda name: (self.designs[name].score or 0.0, -self.designs[name].number))


def read_pairs(paths: Sequence[Path]) -> list[Pair]:
    """The studies of YAML files, folders and campaign files. Raises UserError when one was not run."""
    return [_pair(config) for path in paths for config in load_campaign([path]).studies]


def _pair(config: StudyConfig) -> Pair:
    if not (config.study_folder / FOLDER_FILE).is_file():
        raise UserError(f"compared studies must have been run, but {config.study!r} has no folder yet; run it first")
    search = searched(config)
    return replace(pair_of(config.study, load_history(config), stored_verdict(config)), note=search.note)


def pair_of(
    study: str,
    records: Iterable[TrialRecord],
    verdict: Mapping[str, Any] | None,
    scores_of: Callable[[Path], Mapping[str, float]] = problem_scores,
) -> Pair:
    """A study as far as its trials' files go; `scores_of` reads an items file.

    Raises UserError when no trial is complete, or no problem was answered by all designs.
    """
    designs: dict[str, TrialRecord] = {}
    for record in records:
        if record.state == "complete" and record.target is not None and (record.folder / "items.jsonl").is_file():
            name = canonical_id(record.target)
            if name not in designs or (record.score or 0.0) > (designs[name].score or 0.0):
                designs[name] = record
    if not designs:
        raise UserError(f"compared studies must have complete trials, but {study!r} has none; run it on")
    found = {name: scores_of(record.folder / "items.jsonl") for name, record in designs.items()}
    order = sorted(set.intersection(*(set(each) for each in found.values())))
    scores = {name: np.array([each[problem] for problem in order]) for name, each in found.items()}
    if not order:
        raise UserError(f"compared designs must have common problems, but those of {study!r} have none; run it again")
    return Pair(study, designs, scores, verdict)
