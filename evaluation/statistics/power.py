"""What a confirmation would find, and for how many trainings: known before it is paid for, by simulated races.

Leads and noise are in units of the score; 0.04 is four points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evidence import Simulated, World
from .finals import Finals
from .settings import FinalsSettings
from .standing import CLAIMED, RACING, Line

STUDIES = 400
"""Simulated races behind a stated probability: its standard error is at most 2.5 points."""
SEEDS = (4, 6, 8, 10, 13, 17, 23, 30, 40)
PATIENCE = (1.8, 2.6, 5.0, 12.0)
"""Limits of seeds and patiences that are tried, the cheap ones first."""
WORTHWHILE = 1.25
"""Lead that is looked for where none is asked for, in standard deviations between runs."""
LIKELY = 0.6
"""Probability of finding it."""


@dataclass(frozen=True)
class Noise:
    """Why two runs of one design differ, for a given number of problems."""

    run: float
    """Standard deviation between runs over all possible problems."""
    cell: float
    """What the problems at hand and sampling add to it."""
    problem: float = 0.0
    """Standard deviation of a lead over choices of the problems."""
    freedom: float = 0.0
    """Degrees of freedom of `run`; 0: assumed, not measured."""

    @property
    def total(self) -> float:
        """Standard deviation between runs as one sees it."""
        return float(np.hypot(self.run, self.cell))


@dataclass(frozen=True)
class Chance:
    """What a race does where one design is truly ahead of all others by `lead`, and these are equal."""

    lead: float
    found: float
    """Probability that it is confirmed to be better than plain SFT."""
    found_both: float
    """And better than the published objective too; as `found` where there is none."""
    trainings: float
    """Mean over races, all questions together, at the search's length."""
    race_trainings: float
    """Those of the first question alone."""
    long_trainings: float

    def cost(self, multiple: float | None) -> float:
        """All trainings, in trainings of the search's length."""
        return self.trainings + (multiple or 0.0) * self.long_trainings


def chance(
    lead: float,
    noise: Noise,
    settings: FinalsSettings,
    line: Line,
    generator: np.random.Generator,
    studies: int = STUDIES,
) -> Chance:
    """Simulate races in which the last design leads; without any, the published objective does."""
    better = line.designs[-1] if line.designs else line.candidates - 1
    scores = tuple(lead if index == better else 0.0 for index in range(line.candidates))
    world = World(scores, (noise.run,) * line.candidates, noise.cell, noise.problem)
    race = Finals(line, settings, Simulated(world, _most(settings), studies, generator), studies)
    first = _first_question(race)
    race.run()
    found = race.better[:, better] & (race.winner == better)
    both = found & (race.against_published == CLAIMED) if line.published not in (None, better) else found
    return Chance(
        lead,
        float(found.mean()),
        float(both.mean()),
        float(race.trainings.mean()),
        first,
        float(race.long_trainings.mean()),
    )


def _most(settings: FinalsSettings) -> int:
    return max(settings.seeds, settings.longer_seeds)


def _first_question(race: Finals) -> float:
    """Mean trainings of the first question; the race goes on from there."""
    while (chosen := np.where(race.stage == RACING, race.next(), -1)).max() >= 0:
        race.take(chosen)
    return float(race.trainings.mean())


def cheapest(
    line: Line,
    noise: Noise,
    generator: np.random.Generator,
    *,
    detect: float | None = None,
    power: float | None = None,
    most_seeds: int | None = None,
    base: FinalsSettings | None = None,
) -> FinalsSettings:
    """The race with the fewest trainings, at and without a lead of `detect`, that finds it with probability `power`.

    Where none does, the one that finds it most often. Where nothing is asked, the usual race, which looks for
    `WORTHWHILE`; with a `power` alone it looks for that, and with a `detect` alone it is to be found with `LIKELY`.
    """
    lead = detect if detect is not None else min(0.5, WORTHWHILE * noise.total)
    known = {
        "detect": max(lead, 1e-4),
        "noise": noise.total if noise.freedom else None,
        "noise_freedom": noise.freedom or 1.0,
    }
    usual = (base or FinalsSettings()).model_copy(update=known)
    if detect is None and power is None:
        return usual.model_copy(update={"seeds": most_seeds or usual.seeds})
    limits = [each for each in SEEDS if most_seeds is None or each < most_seeds]
    limits += [] if most_seeds is None else [most_seeds]
    ladders = [
        [usual.model_copy(update={"seeds": seeds, "patience": patience}) for seeds in limits] for patience in PATIENCE
    ]
    wanted = LIKELY if power is None else power
    enough = [found for ladder in ladders if (found := _first(ladder, lead, wanted, noise, line, generator))]
    if not enough:
        return ladders[-1][-1]
    return min(enough, key=lambda each: _price(each, lead, noise, line, generator))


def _first(
    ladder: Sequence[FinalsSettings],
    lead: float,
    wanted: float,
    noise: Noise,
    line: Line,
    generator: np.random.Generator,
) -> FinalsSettings | None:
    """The first race, each with more seeds than the one before, that finds a lead often enough; by bisection."""
    low, high = 0, len(ladder)
    while low < high:
        middle = (low + high) // 2
        found = chance(lead, noise, ladder[middle], line, generator, STUDIES // 2).found >= wanted
        low, high = (low, middle) if found else (middle + 1, high)
    return ladder[low] if low < len(ladder) else None


def _price(settings: FinalsSettings, lead: float, noise: Noise, line: Line, generator: np.random.Generator) -> float:
    """Mean trainings of the first question with and without a lead, added up."""
    both = (chance(each, noise, settings, line, generator, STUDIES // 2) for each in (lead, 0.0))
    return sum(each.race_trainings for each in both)
