"""From the runs of a confirmation to the next ones, and to its verdict.

A confirmation is written down as candidates and a race; what was trained so far is all there is besides. So whoever
looks, on any host, asks for the same trainings next, and a race that was cut goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.statistics.confirmation import Confirmation, conclude
from ...evaluation.statistics.evidence import Tables
from ...evaluation.statistics.finals import Finals, ahead, give_up, replay
from ...evaluation.statistics.standing import Line
from ...spaces.errors import UserError
from ...spaces.identity import derive_seed
from ..store.history import TrialRecord
from ..store.slots import Slot
from ..study.config import StudyConfig
from ..study.parts import Candidate

Scores = dict[str, float]
Run = tuple[int, int]
"""A candidate and a seed; candidates of the longer training come after the others."""


def line_of(candidates: Sequence[Candidate]) -> Line:
    """Who is at the start of a race."""
    published = [index for index, each in enumerate(candidates) if each.role == "published"]
    return Line(len(candidates), published[0] if published else None)


def problem_scores(items: Path) -> Scores:
    """Share of correct samples of each problem in an items file."""
    return dict(_scores(items, items.stat().st_mtime_ns))


@lru_cache(maxsize=512)
def _scores(items: Path, changed: int) -> Scores:
    """`changed`: when the file was, so that it is read again where it is another one."""
    verdicts: dict[str, list[bool]] = {}
    for line in items.read_text("utf-8").splitlines():
        item = json.loads(line)
        verdicts.setdefault(item["problem"], []).append(item["verdict"] == "correct")
    return {problem: sum(correct) / len(correct) for problem, correct in verdicts.items()}


def replicate(candidate: Candidate, seed: int, longer: float | None, steps: int) -> Slot:
    """The slot that trains a candidate with a fresh seed, at `longer` times the search's `steps` where given."""
    facts: dict[str, Any] = {"title": candidate.title, "target": candidate.target.model_dump(mode="json")}
    training: dict[str, Any] = dict(candidate.training)
    if longer is not None:
        training["steps"] = round(longer * steps)
        facts |= {"title": f"{candidate.title}, {longer:g} times as long", "longer": longer}
    return Slot(attributes={**facts, "replicate": seed, "training": training, "candidate": candidate.title})


class Race:
    """How the race of a confirmation stands by its finished runs."""

    def __init__(self, config: StudyConfig, records: Sequence[TrialRecord]) -> None:
        """Raises UserError when plain SFT cannot be trained here any more, so that there is nothing to compare with."""
        assert config.race is not None
        self._config, self._candidates = config, config.candidates
        runs = {key: record for record in records if (key := self._key(record)) is not None}
        self._begun = set(runs)
        complete = {key: each for key, each in runs.items() if each.state == "complete"}
        self.tables = Tables(self._tables(complete))
        self.finals = Finals(line_of(self._candidates), config.race, self.tables, forgotten=self._forgotten(complete))
        self.is_over = self._replay({key for key, each in runs.items() if _is_lost(each)})

    def _replay(self, lost: Collection[Run]) -> bool:
        """Whether the race is over; a candidate that can be trained no more is out of it."""
        while (lacks := replay(self.finals, self.tables.available)) is not None:
            if lacks not in lost:
                return False
            if lacks[0] == 0:
                raise UserError(
                    f"a confirmation needs all its runs of plain SFT, but that of seed {lacks[1]} cannot be trained: "
                    "it ran out of memory, diverged or took too long; allow it more (`limits`), and confirm again"
                )
            give_up(self.finals, lacks[0])
        return True

    def wanted(self, count: int) -> list[Slot]:
        """Up to `count` trainings that come next and have not been begun."""
        if self.is_over:
            return []
        following = ahead(self.finals, count + len(self._begun))
        return [self._slot(*each) for each in following if each not in self._begun][:count]

    def verdict(self, generator: np.random.Generator) -> Confirmation:
        """What it has come to; a race that was cut says what it leaves open."""
        titles = [each.title for each in self._candidates]
        return conclude(self.finals, self.tables, titles, generator)

    def _slot(self, index: int, seed: int) -> Slot:
        assert self._config.race is not None
        short = index < len(self._candidates)
        longer = None if short else self._config.race.longer
        return replicate(self._candidates[index % len(self._candidates)], seed, longer, self._config.training.steps)

    def _key(self, record: TrialRecord) -> Run | None:
        """Which run a trial is."""
        titles = [each.title for each in self._candidates]
        if record.replicate is None or record.candidate not in titles:
            return None
        return titles.index(record.candidate) + (0 if record.longer is None else len(titles)), record.replicate

    def _tables(self, complete: Mapping[Run, TrialRecord]) -> list[Any]:
        """(P, seeds) of each candidate, up to the first seed that is not there."""
        columns = [self._columns(complete, index) for index in range(2 * len(self._candidates))]
        order = sorted(next((column for each in columns for column in each), ("nothing", "yet")))
        return [
            np.array([[column[problem] for column in each] for problem in order]).reshape(len(order), len(each))
            for each in columns
        ]

    def _forgotten(self, complete: Mapping[Run, TrialRecord]) -> list[list[float]]:
        """Of each candidate's runs at the search's length, seed by seed."""
        found: list[list[float]] = [[] for _ in self._candidates]
        for (index, _), record in sorted(complete.items()):
            if index < len(found) and record.retention is not None:
                found[index].append(float(record.retention["forgotten"]))
        return found

    @staticmethod
    def _columns(complete: Mapping[Run, TrialRecord], index: int) -> list[Scores]:
        found: list[Scores] = []
        while (record := complete.get((index, len(found)))) is not None:
            found.append(problem_scores(record.folder / "items.jsonl"))
        return found


def _is_lost(record: TrialRecord) -> bool:
    """Whether a run gives no score for reasons of its own; one that failed by an accident is run again."""
    return record.state == "infeasible"


def wanted(config: StudyConfig, records: Sequence[TrialRecord], count: int) -> list[Slot]:
    """Up to `count` trainings that the race of a confirmation asks for next; none once it is over."""
    return Race(config, records).wanted(count)


def verdict_of(config: StudyConfig, records: Sequence[TrialRecord]) -> Confirmation:
    """What the race of a confirmation has come to, or what a race that was cut can say.

    Raises UserError while runs that it asks for have failed, and before plain SFT and another candidate were trained.
    """
    race = Race(config, records)
    failed = [record.number for record in records if record.state == "failed"]
    if failed and not race.is_over:
        raise UserError(f"a confirmation needs all its trials, but {failed} are not complete; run it again")
    found = race.verdict(np.random.default_rng(derive_seed("confirmation", config.study)))
    if not found.comparisons:
        raise UserError("a confirmation needs plain SFT and another candidate, but not both are trained yet; run it on")
    return found
