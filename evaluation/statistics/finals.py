"""The race of a confirmation: which training comes next, and what has been decided so far.

Candidates are plain SFT, the best published objective (if there is one) and the designs that the search found. One
training at a time is chosen, and after each it is seen what has been decided (`questions.py`):

1. Is a candidate better than plain SFT? Designs race first, the published objective once no design is left. The one
   with the fewest seeds is trained next, the leader first and plain SFT last, so that a run that ends a candidate's
   race spares the others; while several designs race, plain SFT, which all are compared with, counts half its seeds.
   A candidate leaves when the data favour no lead over the lead one looks for (`detect`) by `patience` to one (the
   published objective: unless they favour the lead by a little), when it trails the leading one by `TRAILING` standard
   errors, or at the limit of seeds.
2. Is the winner better than the best published objective? That gets the seeds it lacks; the same rules. Its own
   question 1 is asked on the way, by its own part of α. Where the question is given up and the published objective is
   ahead, that is trained until it is better than plain SFT, too, and wins in the design's place, or leaves.
   A candidate that is better but forgets too much leaves; it wins only where no other is better.
3. Does the lead last? Winner and rivals are trained at a multiple of the steps; the change of the lead is the contrast
   of four candidates. A rival is left alone once this is said of it, or can hardly be by more runs.

Error rates: question 1 shares α out over the candidates, `DESIGN_SHARE` parts a design to one for the published
objective. What a winner has gained by being claimed goes on to its further questions (a fallback chain: Wiens and
Dmitrienko 2005, in groups of looks Maurer and Bretz 2013): `PUBLISHED_PART` of it to question 2 and the rest to
question 3, or all of it to question 3 once question 2 is settled in its favour. Claims follow `sequential.levels`;
leaving can only prevent them. So one may stop a race at any moment, and who leaves when is a matter of cost alone.

Everything is done for S studies at once: a real one is S = 1, and plans simulate many.
"""

from collections.abc import Sequence

import numpy as np

from .leads import Counts
from .questions import end_race, length, published, race, start_length
from .standing import LENGTH, OPEN, OVER, PUBLISHED, RACING, UNSETTLED, Flags, Standing

SHARED_BY_DESIGNS = 2
"""Seeds of plain SFT for one of each design, while there are several: one run of it serves all comparisons."""


class Finals(Standing):
    """S races on their way."""

    def next(self, seeds: Counts | None = None) -> Counts:
        """(S,) the candidate to train next (C and more: longer), -1 where the race is over.

        `seeds`: as if so many were trained already and had decided nothing.
        """
        seeds = self.seeds if seeds is None else seeds
        means = self.so_far().means
        ties = (means - means.min(axis=1, keepdims=True)) / (2 * np.ptp(means, axis=1, keepdims=True) + 1e-9)
        ties[:, [0, self.line.candidates]] = -0.5
        order = ties - self._counted(seeds) - 1e-6 * np.arange(seeds.shape[1])
        order = np.where(self._wanted(seeds), order, -np.inf)
        return np.where(np.isinf(order.max(axis=1)), -1, order.argmax(axis=1))

    def take(self, chosen: Counts) -> None:
        """Count one more run of the `chosen` candidates (S,), and see what that decides; -1: none."""
        rows = np.flatnonzero(chosen >= 0)
        self.seeds[rows, chosen[rows]] += 1
        self._so_far = None
        runs, before = self.so_far(), self.stage.copy()
        for stage, judge in ((RACING, race), (PUBLISHED, published), (LENGTH, length)):
            open_ = (before == stage) & (chosen >= 0)
            if open_.any():
                judge(self, runs, open_)

    def run(self) -> None:
        """Train what comes next in every study until all are over."""
        while (chosen := self.next()).max() >= 0:
            self.take(chosen)

    def _counted(self, seeds: Counts) -> Counts:
        """(S, 2C) seeds as far as they are told against a candidate's turn."""
        counted = seeds.copy()
        several = (self.stage == RACING) & (self.racing[:, self.line.designs].sum(axis=1) > 1)
        counted[several, 0] //= SHARED_BY_DESIGNS
        return counted

    def _wanted(self, seeds: Counts) -> Flags:
        """(S, 2C) who may be trained next."""
        count, rival = self.line.candidates, self.line.published
        wanted = np.zeros(seeds.shape, dtype=bool)
        first, second, third = (self.stage == stage for stage in (RACING, PUBLISHED, LENGTH))
        wanted[:, :count] = self.racing & first[:, None]
        wanted[:, 0] = first
        if rival is not None:
            wanted[:, rival] &= ~self.racing[:, self.line.designs].any(axis=1)
            wanted[:, rival] |= second
            overtaken = self.overtaken()
            wanted[self.rows, self.winner] |= second & ~overtaken & (seeds[:, rival] >= seeds[self.rows, self.winner])
            wanted[:, 0] |= overtaken
        wanted[:, :count] &= seeds[:, :count] < self.settings.seeds
        wanted[:, count:] = third[:, None] & self.finalists & (seeds[:, count:] < self.settings.longer_seeds)
        return wanted


def ahead(finals: Finals, count: int, deepest: int = 2) -> list[tuple[int, int]]:
    """Up to `count` next trainings of a single study as (candidate, seed), as if none decided anything.

    No candidate gets more than `deepest` runs that nothing has looked at yet.
    """
    seeds = finals.seeds.copy()
    found: list[tuple[int, int]] = []
    while len(found) < count and (chosen := int(finals.next(seeds)[0])) >= 0:
        if seeds[0, chosen] >= finals.seeds[0, chosen] + deepest:
            break
        found.append((chosen, int(seeds[0, chosen])))
        seeds[0, chosen] += 1
    return found


def replay(finals: Finals, available: Sequence[int]) -> tuple[int, int] | None:
    """Take the runs that are there in the order in which they are asked for.

    `available`: (2C,) runs of each candidate, without gaps. Returns the (candidate, seed) that lacks, None once the
    race is over.
    """
    while (chosen := int(finals.next()[0])) >= 0:
        if finals.seeds[0, chosen] >= available[chosen]:
            return chosen, int(finals.seeds[0, chosen])
        finals.take(np.array([chosen]))
    return None


def give_up(finals: Finals, chosen: int) -> None:
    """Go on in a single study without a candidate that cannot be trained any more: what was open stays unsettled."""
    everywhere = np.array([True])
    if finals.stage[0] == RACING:
        finals.racing[0, chosen] = False
        finals.note(RACING, chosen, UNSETTLED, everywhere)
        if not finals.racing.any():
            end_race(finals, finals.so_far(), everywhere)
    elif finals.stage[0] == PUBLISHED:
        finals.against_published[0] = UNSETTLED
        start_length(finals, everywhere)
    else:
        finals.trend[finals.trend == OPEN] = UNSETTLED
        finals.stage[0] = OVER
