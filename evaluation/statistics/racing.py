"""Ends the evaluation of a trial that will not beat the incumbent, on the items both have answered.

The problems come in a fixed random order, the same for all trials. The question is whether the trial's mean x̄ over
all N items can still reach the incumbent's mean ȳ plus a margin. Items differ in difficulty, so each score is compared
with a reference r_i that is known for all items: the incumbent's own score (paired differences), or better what the
trials evaluated in full say together (`predictions`), without the incumbent's own noise (up to half the variance).
With d_i = x_i - r_i the hypothesis x̄ >= ȳ + margin says that the mean of d is at least m = ȳ + margin - r̄, so that the
expected next difference, given those seen, is at least

    m_i = (N m - Σ_{j<i} d_j) / (N - i + 1)        (drawing without replacement)

Hence the wealth of a bettor against it, Π_i (1 - c (d_i - m_i) / (u - m_i)) with d <= u and a fixed share 0 < c < 1, is
a nonnegative supermartingale (Waudby-Smith and Ramdas 2020, arXiv 2006.04347; 2024, JRSS B 86:1). So is the average
over shares. By Ville's inequality it ever reaches 1/α with probability at most α: one may look after every block and
stop at will. Once winning every remaining item would not suffice, the evidence is infinite.

Error rate, margin, looks and shares were chosen on replayed studies (`benchmarks/racing.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..settings import RacingSettings

SHARES = np.array([0.4, 0.7])
"""Shares c of the bettors. Few trials that matter lose by so little that a smaller share would win more, and every
bettor that is added takes its part of the stake from the one that is right."""
PROOF = 1e12
"""Shown in place of infinite evidence."""


@dataclass(frozen=True)
class RaceDecision:
    """Whether to stop, with what it rests on, for log and report."""

    stop: bool
    problems: int
    """Items compared."""
    difference: float
    """Mean score of the trial minus the incumbent's, on these items."""
    e_value: float
    """Largest evidence so far that the trial ends below the margin."""
    threshold: float
    """Evidence that stops: 1 / error rate."""

    def __str__(self) -> str:
        verb = "stopped" if self.stop else "goes on"
        points = f"{100 * self.difference:+.1f} points after {self.problems} problems"
        return f"{verb}: {points}, evidence {self.e_value:.3g} of {self.threshold:g}"


def race(
    trial: ArrayLike, incumbent: ArrayLike, settings: RacingSettings, *, reference: ArrayLike | None = None
) -> RaceDecision:
    """Decide from the trial's scores so far (n,) and all of the incumbent's (N,), both in the shared problem order.

    `reference`: (N,) in [0, 1], what is expected of a score on each item before the trial is seen (`predictions`).
    None: the incumbent's scores. A pure function; calling it after every block keeps the
    error rate. Raises ValueError when the trial has more scores than the incumbent, or a score is outside [0, 1].
    """
    ours, theirs = _scores(trial, "trial"), _scores(incumbent, "incumbent")
    known = theirs if reference is None else _scores(reference, "reference")
    if not 0 < len(ours) <= len(theirs) == len(known):
        raise ValueError(
            f"`trial` must have between 1 and the incumbent's {len(theirs)} scores, but got {len(ours)}; "
            "compare only with an incumbent that was scored on all problems"
        )
    found = min(float(evidence(ours, float(theirs.mean()) + settings.margin, known)[-1]), PROOF)
    threshold = 1 / settings.error_rate
    difference = float((ours - theirs[: len(ours)]).mean())
    return RaceDecision(found >= threshold, len(ours), difference, found, threshold)


def evidence(trial: NDArray[np.float64], needed: float, reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) largest evidence after each of the trial's n scores that its mean over all (N,) ends below `needed`."""
    total, seen = len(reference), np.arange(1, len(trial) + 1)
    differences = trial - reference[: len(trial)]
    found = wealth(differences, total, needed - float(reference.mean()), 1 - float(reference.min()))
    best = (np.cumsum(trial) + total - seen) / total
    return np.maximum.accumulate(np.where(best < needed - 1e-9, np.inf, found))


def predictions(complete: ArrayLike, incumbent: ArrayLike) -> NDArray[np.float64]:
    """(N,) what to expect of a score on each item: the mean of the trials evaluated in full (trials, N), the incumbent
    among them, and of one that has the incumbent's mean on every item, so that few trials are not trusted too far.
    """
    scores, theirs = np.asarray(complete, dtype=np.float64), np.asarray(incumbent, dtype=np.float64)
    return np.asarray((scores.sum(axis=0) + theirs.mean()) / (len(scores) + 1), dtype=np.float64)


def looks(total: int, block: int, growth: float = 1.0) -> list[int]:
    """Problems seen at each look: `block` at the first, `total` at the last, and each time `block` more or `growth`
    times as many, whichever is later. Few looks keep batches full; the evidence between them is not lost.
    """
    ends = [min(block, total)]
    while ends[-1] < total:
        ends.append(min(total, ends[-1] + max(block, round((growth - 1) * ends[-1]))))
    return ends


def racer(
    incumbent: Sequence[float],
    settings: RacingSettings,
    *,
    reference: Sequence[float] | None = None,
    on_decision: Callable[[RaceDecision], None] | None = None,
) -> Callable[[Sequence[float]], bool]:
    """A callback for `evaluate`: from the scores so far to "stop". It never stops on the last problem."""

    def decide(trial: Sequence[float]) -> bool:
        decision = race(trial, incumbent, settings, reference=reference)
        if on_decision is not None:
            on_decision(decision)
        return decision.stop and len(trial) < len(incumbent)

    return decide


def wealth(differences: NDArray[np.float64], total: int, mean: float, upper: float) -> NDArray[np.float64]:
    """Wealth (n,) after each of n differences <= `upper` drawn without replacement from `total`, against the hypothesis
    that the mean of all is at least `mean`; averaged over `SHARES`. Infinite from where the hypothesis is impossible.
    """
    seen = np.arange(len(differences))
    before = np.concatenate([[0.0], np.cumsum(differences)[:-1]])
    least = (total * mean - before) / (total - seen)  # m_i, (n,)
    possible = least < upper - 1e-9
    bets = np.outer(SHARES, (differences - least) / np.where(possible, upper - least, 1.0))  # (shares, n), each <= c
    steps = np.where(possible, np.log1p(-np.minimum(bets, SHARES[:, None])), 0.0)
    averaged = np.exp(np.cumsum(steps, axis=1)).mean(axis=0)
    refuted = np.maximum.accumulate(least > upper + 1e-9)  # rounding is not taken for proof
    return np.where(refuted, np.inf, averaged)


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"`{name}` must be a vector of scores in [0, 1], but got shape {scores.shape}")
    return scores
