"""Is one candidate ahead of another? Contrasts of mean scores where problems and seeds are both random draws.

Letters: S studies (one, or many simulated at once), C candidates, P problems. A run is a training with one seed; its
score is the mean over problems. A lead is a contrast Σ_i w_i m_i of the candidates' mean scores: +1 and -1 for two, and
four of them for how a lead changes with the length of training. Its variance is

    V = V_problem + max(0, V_seed - V_cell)

    V_problem   Var over problems of Σ_i w_i x_i, x_i (P,) a candidate's mean over its seeds, divided by P
    V_seed      Σ_i w_i² v_i / n_i, v_i the variance between the n_i runs of a candidate
    V_cell      Σ_i w_i² c_i / n_i, c_i what problems alone add to v_i: in both of the above, counted once

with Satterthwaite's degrees of freedom (1946). Candidates may differ in how noisy they are, so each v_i is its own, as
Welch's (1947): pooled over all, ten points of noise in plain SFT beside half a point in the others would pass for five.
But two or three runs that happen to agree are no proof of little noise. A variance below that of the other candidates
is drawn towards it, v_i = (f_i s_i² + k s_o²) / (f_i + k) with f_i = n_i - 1, s_o² the others' mean square and k
`BORROWED` (or as many degrees as the others have), and then counts as f_i + k; one above theirs stands as it is. Where
one candidate makes most of V_seed, its share is likelier to be larger yet than it looks: `CAUTION` of what is missing
is added to it before degrees of freedom are counted. Both were chosen on simulated races in which designs are as noisy
as each other, and up to twenty times as noisy (`benchmarks/races.py`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

BORROWED = 4
"""Degrees of freedom that a variance below the others' takes over from them."""
CAUTION = 0.2


@dataclass(frozen=True)
class Runs:
    """What the runs of each candidate came to."""

    seeds: Counts
    """(S, C) runs so far."""
    means: Array
    """(S, C) mean score over them; 0 where there is none."""
    variances: Array
    """(S, C) variance between them; 0 below two."""

    @property
    def freedom(self) -> Array:
        return np.maximum(self.seeds - 1, 0).astype(np.float64)


@dataclass(frozen=True)
class Lead:
    """A contrast with its uncertainty, each (S,)."""

    effect: Array
    error: Array
    """Standard error."""
    freedom: Array
    """Degrees of freedom of the t distribution."""
    seed_error: Array
    """Part of the standard error that more problems would not remove."""

    @property
    def p_value(self) -> Array:
        """One-sided: how probable so large a lead is where there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(self.error > 0, self.effect / self.error, np.sign(self.effect) * np.inf)
        return np.where((self.error == 0) & (self.effect == 0), 0.5, stdtr(self.freedom, -score))

    def half_width(self, level: float) -> Array:
        """Of the interval whose either end is missed with probability `level`."""
        return np.asarray(-stdtrit(self.freedom, level) * self.error)

    def of(self, rows: Counts) -> "Lead":
        """Those of some studies alone."""
        return Lead(self.effect[rows], self.error[rows], self.freedom[rows], self.seed_error[rows])


def steadied(runs: Runs, floor: Array) -> tuple[Array, Array]:
    """(variances, degrees of freedom), (S, C) each, of one run; `floor`: (S, C) what problems alone make of it."""
    own, freedom = np.maximum(runs.variances, floor), runs.freedom
    others = freedom.sum(axis=1, keepdims=True) - freedom
    theirs = ((own * freedom).sum(axis=1, keepdims=True) - own * freedom) / np.maximum(others, 1)
    taken = np.where(own < theirs, np.minimum(BORROWED, others), 0.0)
    total = np.maximum(freedom + taken, 1)
    return (own * freedom + theirs * taken) / total + own * (freedom + taken == 0), total


def lead(runs: Runs, weights: Array, problem: Array, cell: Array, problems: int) -> Lead:
    """The contrast `weights` (S, C) of candidates with runs; `problem` (S,) is V_problem, `cell` (S, C) the c_i."""
    variances, freedom = steadied(runs, cell)
    shares = weights**2 / np.maximum(runs.seeds, 1)
    parts = shares * variances
    whole = parts.sum(axis=1)
    extra = np.maximum(0.0, whole - (shares * cell).sum(axis=1))
    variance = problem + extra
    spread = problem**2 / (problems - 1) + (_cautious(parts, whole) ** 2 / freedom).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(spread > 0, variance**2 / spread, float(problems - 1))
    effect = (weights * runs.means).sum(axis=1)
    return Lead(effect, np.sqrt(variance), np.maximum(degrees, 1.0), np.sqrt(extra))


def eventual(runs: Runs, weights: Array, problem: Array, cell: Array, last: int) -> Array:
    """(S,) variance that a contrast will have once each candidate has `last` runs, by the noise seen so far.

    More runs make V_seed smaller, and the part of V_problem that problems add anew in each run; not the rest of it.
    """
    variances, _ = steadied(runs, cell)
    added = (weights**2 / np.maximum(runs.seeds, 1) * cell).sum(axis=1)
    return np.asarray(np.maximum(0.0, problem - added) + (weights**2 * variances).sum(axis=1) / last)


def _cautious(parts: Array, whole: Array) -> Array:
    """(S, C) parts of V_seed of the same sum `whole` (S,), the largest one larger."""
    largest = np.zeros_like(parts)
    largest[np.arange(len(parts)), parts.argmax(axis=1)] = whole
    return (1 - CAUTION) * parts + CAUTION * largest
