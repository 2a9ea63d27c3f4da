"""The verdict of a confirmation: three answers, each with its interval, from a race that is over or was cut.

Intervals are repeated confidence intervals (Jennison and Turnbull 1989): they leave on either side what the look they
rest on may spend, so that all of them hold together, whenever the race ended, and interval and claim agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from .evidence import Tables
from .finals import Finals
from .leads import Array, Counts
from .questions import FIRST_LONG_LOOK
from .sequential import levels
from .standing import CLAIMED, GROWS, HOLDS, LENGTH, NOT_ASKED, OVER, PUBLISHED, RACING, SHRINKS
from .stats import bootstrap_interval, shrink


class Outcome(StrEnum):
    """What a confirmation may say of a design."""

    BETTER = "better than SFT"
    SAME = "not distinguishable from SFT"
    WORSE = "worse"


class Trend(StrEnum):
    """What may be said of a lead when training gets longer."""

    GROWS = "grows"
    HOLDS = "holds"
    SHRINKS = "shrinks"
    UNKNOWN = "cannot be told"


TRENDS = {GROWS: Trend.GROWS, HOLDS: Trend.HOLDS, SHRINKS: Trend.SHRINKS}


@dataclass(frozen=True)
class Comparison:
    """One candidate against plain SFT. Effects are score differences: 0.01 is one point."""

    title: str
    outcome: Outcome
    score: float
    """Mean over problems and its own seeds."""
    effect: float
    low: float
    high: float
    """Interval of the effect at `level`."""
    level: float
    """Confidence of the interval on its own; together all intervals hold at 1 - 2 α."""
    standard_error: float
    freedom: float
    """Degrees of freedom of the t distribution."""
    p_value: float
    """One-sided, in the direction of the effect."""
    adjusted_p_value: float
    """The error rate at which this look would just be significant."""
    shrunken: float
    """Effect drawn towards no effect by as much as the noise asks for: what to expect of a repetition."""
    seed_error: float
    """Part of the standard error that more problems would not remove."""
    bootstrap: tuple[float, float]
    """95 % interval from resampling problems alone: what holds for these very seeds."""
    seeds: int
    """Runs that it rests on."""


@dataclass(frozen=True)
class Rivalry:
    """The winner against the best published objective; where that is the winner, the best design against it."""

    title: str
    """Who is compared."""
    rival: str
    settled: bool
    """Whether the first is better, for sure."""
    effect: float
    low: float
    high: float
    level: float
    seeds: int
    """Runs of the one that has fewer."""


@dataclass(frozen=True)
class Lasting:
    """How the winner's lead over a rival changes when training takes longer."""

    rival: str
    trend: Trend
    shorter: float
    """The lead at the search's length."""
    longer: float
    change: float
    low: float
    high: float
    """Interval of the change."""
    level: float
    seeds: int
    """Longer runs of each."""


@dataclass(frozen=True)
class Confirmation:
    """The verdict on a study."""

    outcome: Outcome
    """BETTER if any candidate is; WORSE if all are; else SAME."""
    winner: str | None
    sft_score: float
    comparisons: tuple[Comparison, ...]
    against_published: Rivalry | None
    lasting: tuple[Lasting, ...]
    undecided: tuple[str, ...]
    """What a race that was cut has left open: of `sft`, `published` and `length`."""
    problems: int
    seeds: int
    """Most runs of any candidate."""
    sft_seeds: int
    """Runs of plain SFT."""
    trainings: int
    long_trainings: int
    error_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def conclude(
    finals: Finals, tables: Tables, titles: Sequence[str], generator: np.random.Generator, *, resamples: int = 10_000
) -> Confirmation:
    """What the race of one study has come to. Generator and `resamples` serve the bootstrap intervals only."""
    comparisons = _comparisons(finals, tables, titles, generator, resamples)
    better = [each for each in comparisons if each.outcome is Outcome.BETTER]
    all_worse = all(each.outcome is Outcome.WORSE for each in comparisons)
    winner = int(finals.winner[0])
    return Confirmation(
        outcome=Outcome.BETTER if better else Outcome.WORSE if all_worse else Outcome.SAME,
        winner=titles[winner] if winner >= 0 else None,
        sft_score=float(finals.evidence.runs(finals.seeds).means[0, 0]),
        comparisons=comparisons,
        against_published=_rivalry(finals, titles),
        lasting=tuple(_lasting(finals, titles)),
        undecided=_undecided(finals),
        problems=tables.problems,
        seeds=int(finals.seeds.max()),
        sft_seeds=int(finals.seeds[0, 0]),
        trainings=int(finals.trainings[0]),
        long_trainings=int(finals.long_trainings[0]),
        error_rate=finals.settings.error_rate,
    )


def _undecided(finals: Finals) -> tuple[str, ...]:
    stage = int(finals.stage[0])
    published = () if finals.line.published is None else ("published",)
    length = () if finals.settings.longer is None else ("length",)
    return {
        RACING: ("sft", *published, *length),
        PUBLISHED: ("published", *length),
        LENGTH: length,
        OVER: (),
    }[stage]


def _at(finals: Finals, question: int, candidate: int) -> Counts:
    """(1, 2C) the runs there were when something was settled; all there are where nothing is."""
    settled = (each.seeds for each in finals.history if (each.question, each.candidate) == (question, candidate))
    return next(settled, finals.seeds[0])[None]


@dataclass(frozen=True)
class _Estimate:
    effect: float
    low: float
    high: float
    tail: float
    error: float
    freedom: float
    p_value: float
    seed_error: float

    @property
    def level(self) -> float:
        return 1 - 2 * self.tail


def _estimate(
    finals: Finals, weights: Array, seeds: Counts, fewer: int, looks: Mapping[int, float], claimed: bool
) -> _Estimate:
    """A contrast with an interval that leaves on either side what the look at `fewer` runs may spend, of `looks`.

    Nothing is known with one run of each. Between two looks a lead may seem certain that none of them has claimed: then
    its interval still begins at 0. Before the first look nothing was spent: every interval contains 0, and no p-value
    is told.
    """
    first, last = min(looks), max(looks)
    tail, looked = looks[min(max(fewer, first), last)], fewer >= first
    found = finals.lead(weights, seeds)
    known = bool((seeds > 1).any())
    half = float(found.half_width(tail)[0]) if known else 1.0
    effect, p_value = float(found.effect[0]), float(found.p_value[0])
    bound = float(np.abs(weights).sum()) / 2  # scores are in [0, 1]
    return _Estimate(
        effect,
        max(-bound, effect - half if claimed else min(0.0, effect - half)),
        min(bound, effect + half) if looked else max(0.0, min(bound, effect + half)),
        tail,
        float(found.error[0]),
        float(found.freedom[0]),
        min(p_value, 1 - p_value) if known and looked else 0.5,
        float(found.seed_error[0]),
    )


def _comparisons(
    finals: Finals, tables: Tables, titles: Sequence[str], generator: np.random.Generator, resamples: int
) -> tuple[Comparison, ...]:
    found = []
    for index in range(1, finals.line.candidates):
        seeds, weights = _at(finals, RACING, index), finals.contrast(index, 0)
        if fewer := int(min(seeds[0, index], seeds[0, 0])):
            looks, claimed = levels(finals.error_rates[index], finals.settings.seeds), bool(finals.better[0, index])
            found.append((index, seeds, _estimate(finals, weights, seeds, fewer, looks, claimed)))
    errors = [max(each.error, 1e-12) for _, _, each in found]
    effects = [each.effect for _, _, each in found]
    shrunken = shrink(effects, errors, centre=0.0).estimates.tolist() if found else []
    return tuple(
        Comparison(
            title=titles[index],
            outcome=_outcome(bool(finals.better[0, index]), each),
            score=float(tables.rows(index, int(seeds[0, index])).mean()),
            effect=each.effect,
            low=each.low,
            high=each.high,
            level=each.level,
            standard_error=each.error,
            freedom=each.freedom,
            p_value=each.p_value,
            adjusted_p_value=min(1.0, each.p_value / each.tail * finals.settings.error_rate),
            shrunken=float(expected),
            seed_error=each.seed_error,
            bootstrap=bootstrap_interval(
                tables.rows(index, int(seeds[0, index])) - tables.rows(0, int(seeds[0, 0])),
                generator,
                resamples=resamples,
            ),
            seeds=int(seeds[0, index]),
        )
        for (index, seeds, each), expected in zip(found, shrunken, strict=True)
    )


def _outcome(claimed: bool, found: _Estimate) -> Outcome:
    if claimed:
        return Outcome.BETTER
    return Outcome.WORSE if found.high < 0 else Outcome.SAME


def _rivalry(finals: Finals, titles: Sequence[str]) -> Rivalry | None:
    """The second answer; without a winner, of the design that leads. None where there is no published objective."""
    rival, count = finals.line.published, finals.line.candidates
    if rival is None or not finals.line.designs or not finals.seeds[0, rival]:
        return None
    winner = int(finals.winner[0])
    means = finals.evidence.runs(finals.seeds).means[0, :count]
    who = winner if winner in finals.line.designs else max(finals.line.designs, key=lambda each: means[each])
    seeds = _at(finals, PUBLISHED, rival)
    fewer = int(min(seeds[0, who], seeds[0, rival]))
    looks = levels(finals.published_rate(who), finals.settings.seeds)
    settled = int(finals.against_published[0]) == CLAIMED
    each = _estimate(finals, finals.contrast(who, rival), seeds, fewer, looks, settled)
    return Rivalry(titles[who], titles[rival], settled, each.effect, each.low, each.high, each.level, fewer)


def _lasting(finals: Finals, titles: Sequence[str]) -> list[Lasting]:
    """The third answer, for each rival; nothing where it was not asked or no longer run is there."""
    winner, count, found = int(finals.winner[0]), finals.line.candidates, []
    for place, rival in enumerate((0, finals.line.published)):
        if rival is None or int(finals.trend[0, place]) == NOT_ASKED:
            continue
        runs = _at(finals, LENGTH, rival)
        seeds = int(min(runs[0, count + winner], runs[0, count + rival]))
        if not seeds:
            continue
        looks = levels(float(finals.trend_rates()[0]) / 2, finals.settings.longer_seeds, FIRST_LONG_LOOK)
        trend = TRENDS.get(int(finals.trend[0, place]), Trend.UNKNOWN)
        change = _estimate(finals, finals.change(winner, rival), runs, seeds, looks, trend is Trend.GROWS)
        shorter = float(finals.lead(finals.contrast(winner, rival), runs).effect[0])
        longer = shorter + change.effect
        measured = (shorter, longer, change.effect, change.low, change.high, change.level)
        found.append(Lasting(titles[rival], trend, *measured, seeds))
    return found
