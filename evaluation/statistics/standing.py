"""The state of the races of a confirmation, and what is known of a lead (`finals.py` has the rules)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .leads import Array, Counts, Lead, Runs, eventual, lead
from .settings import FinalsSettings

Flags = NDArray[np.bool_]

DESIGN_SHARE = 4.0
PUBLISHED_PART = 2 / 3
TRAILING = 1.0
"""Standard errors behind the leading design at which another leaves."""
RACING, PUBLISHED, LENGTH, OVER = range(4)
"""Stages: the question that is open."""
NOT_ASKED, OPEN, UNSETTLED, CLAIMED, GROWS, SHRINKS, HOLDS = range(7)
"""How a question stands; the last three are claims about a lead over the length of training."""


class Evidence(Protocol):
    """What runs came to, as far as they are counted: candidates at the search's length, then the same ones longer."""

    problems: int

    def runs(self, seeds: Counts) -> Runs:
        """Of the first `seeds` (S, 2C) runs of each."""
        ...

    def problem(self, weights: Array, seeds: Counts) -> Array:
        """(S,) V_problem of a contrast."""
        ...

    def cell(self, seeds: Counts) -> Array:
        """(S, 2C) what problems alone add to the variance between runs."""
        ...


@dataclass(frozen=True)
class Line:
    """Who is at the start: plain SFT is candidate 0."""

    candidates: int
    published: int | None = None
    """Which of them is the best published objective."""

    @property
    def designs(self) -> list[int]:
        return [index for index in range(1, self.candidates) if index != self.published]

    def error_rates(self, total: float) -> list[float]:
        """Each candidate's part of question 1; nothing for plain SFT."""
        parts = [0.0, *(1.0 if index == self.published else DESIGN_SHARE for index in range(1, self.candidates))]
        return [total * part / sum(parts) for part in parts]


@dataclass(frozen=True)
class Settled:
    """Something was decided of a candidate, with what was known then."""

    question: int
    candidate: int
    state: int
    seeds: Counts
    """(2C,) runs of each candidate that it rests on."""


@dataclass
class Standing:
    """How S races stand; everything follows from the evidence and the settings."""

    line: Line
    settings: FinalsSettings
    evidence: Evidence
    studies: int = 1
    history: list[Settled] = field(default_factory=list)
    """Of a single study."""
    forgotten: Sequence[Sequence[float]] = ()
    """Of a single study: what each run of each candidate forgot; empty where that was not measured."""

    def __post_init__(self) -> None:
        count, studies = self.line.candidates, self.studies
        self.rows = np.arange(studies)
        self.seeds: Counts = np.zeros((studies, 2 * count), dtype=np.int64)
        self.stage = np.full(studies, RACING)
        self.racing: Flags = np.tile(np.arange(count) > 0, (studies, 1))
        self.better: Flags = np.zeros((studies, count), dtype=bool)
        self.winner: Counts = np.full(studies, -1)
        self.against_published = np.full(studies, NOT_ASKED)
        self.trend = np.full((studies, 2), NOT_ASKED)
        """Of the lead over plain SFT, and over the published objective."""
        self.looked: Counts = np.zeros((studies, count), dtype=np.int64)
        """Seeds at the last look at a candidate; of candidate 0, at the last look against the published objective."""
        self.error_rates = self.line.error_rates(self.settings.error_rate)
        self._so_far: Runs | None = None

    def so_far(self) -> Runs:
        """What the runs so far came to."""
        if self._so_far is None:
            self._so_far = self.evidence.runs(self.seeds)
        return self._so_far

    @property
    def trainings(self) -> Counts:
        """(S,) runs at the search's length."""
        return np.asarray(self.seeds[:, : self.line.candidates].sum(axis=1))

    @property
    def long_trainings(self) -> Counts:
        """(S,) runs at the longer one."""
        return np.asarray(self.seeds[:, self.line.candidates :].sum(axis=1))

    @property
    def finalists(self) -> Flags:
        """(S, C) the winner, and the rivals of which it is open whether its lead over them lasts."""
        found = np.zeros((self.studies, self.line.candidates), dtype=bool)
        found[:, 0] = self.trend[:, 0] == OPEN
        if self.line.published is not None:
            found[:, self.line.published] = self.trend[:, 1] == OPEN
        found[self.rows, self.winner] = True
        return found

    def overtaken(self) -> Flags:
        """(S,) where question 2 was given up, and it is asked whether the published objective wins instead."""
        return np.asarray((self.stage == PUBLISHED) & (self.against_published == UNSETTLED))

    def contrast(self, index: Counts | int, against: Counts | int) -> Array:
        """(S, 2C) weights of the lead of one candidate over another."""
        weights = np.zeros((self.studies, 2 * self.line.candidates))
        weights[self.rows, index] += 1.0
        weights[self.rows, against] -= 1.0
        return weights

    def change(self, index: Counts | int, against: Counts | int, kept: float = 1.0) -> Array:
        """(S, 2C) weights of a lead in the longer training less `kept` times that in the shorter one."""
        count = self.line.candidates
        longer = self.contrast(np.asarray(index) + count, np.asarray(against) + count)
        return longer - kept * self.contrast(index, against)

    def lead(self, weights: Array, seeds: Counts | None = None) -> Lead:
        """A contrast by the runs so far, or by the first `seeds` (S, 2C)."""
        evidence, runs = self.evidence, self.so_far() if seeds is None else self.evidence.runs(seeds)
        seeds = self.seeds if seeds is None else seeds
        return lead(runs, weights, evidence.problem(weights, seeds), evidence.cell(seeds), evidence.problems)

    def eventual(self, weights: Array) -> Array:
        """(S,) variance of a contrast of two candidates once both have all their seeds."""
        seeds, evidence = self.seeds, self.evidence
        cell = evidence.cell(seeds)
        return eventual(self.so_far(), weights, evidence.problem(weights, seeds), cell, self.settings.seeds)

    def published_rate(self, index: int) -> float:
        """Error rate of question 2 for a winner."""
        return PUBLISHED_PART * self.error_rates[index]

    def trend_rates(self) -> Array:
        """(S,) error rate of question 3, for each rival alike."""
        own = np.array(self.error_rates)[self.winner]
        settled = np.isin(self.against_published, (NOT_ASKED, CLAIMED))
        rivals = np.maximum((self.trend != NOT_ASKED).sum(axis=1), 1)
        return np.asarray(np.where(settled, 1.0, 1 - PUBLISHED_PART) * own / rivals)

    def may_win(self) -> Flags:
        """(S, C) who keeps within what may be forgotten, by the runs that are counted."""
        allowed, limit = np.ones((self.studies, self.line.candidates), dtype=bool), self.settings.most_forgotten
        if limit is not None:
            for index, runs in enumerate(self.forgotten):
                counted = runs[: self.seeds[0, index]]
                allowed[0, index] = not counted or float(np.mean(counted)) <= limit
        return allowed

    def note(self, question: int, candidate: int, state: int, where: Flags) -> None:
        if self.studies == 1 and where[0]:
            self.history.append(Settled(question, candidate, state, self.seeds[0].copy()))
