"""Scores with their uncertainty: means, intervals, paired comparisons, corrections for having chosen.

Letters: P problems, K samples of one problem, G clusters, M hypotheses. Pure numpy and scipy; randomness is a generator
passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def average_at_k(correct: ArrayLike) -> float:
    """Mean over problems of the share of correct samples. `correct`: (P, K), in [0, 1]."""
    return float(_matrix(correct).mean())


def pass_at_k(correct: ArrayLike, k: int) -> float:
    """Unbiased chance that at least one of k samples is correct, averaged over problems.

    1 - C(K - c, k) / C(K, k) for c of K correct (Chen et al. 2021, eq. 1), in log space. `correct`: (P, K) of 0 and 1.
    Raises ValueError unless 1 <= k <= K.
    """
    matrix = _matrix(correct)
    samples = matrix.shape[1]
    if not 1 <= k <= samples:
        raise ValueError(f"`k` must be between 1 and the {samples} samples per problem, but got {k}")
    wrong = samples - matrix.sum(axis=1)
    with np.errstate(divide="ignore"):  # fewer than k wrong samples: log 0, a pass for certain
        log_miss = _log_binomial(wrong, k) - _log_binomial(np.full_like(wrong, samples), k)
    return float(np.mean(-np.expm1(log_miss)))


def standard_error(values: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Standard error of the mean of `values` (n,), whose `clusters` (n,) are drawn together; None: all on their own.

    sqrt(G / (G - 1) · Σ_g (Σ_{i in g} (x_i - x̄))²) / n (Miller 2024, arXiv 2411.00640, with the small-sample factor);
    with clusters of one that is std / sqrt(n). Raises ValueError for fewer than two clusters.
    """
    centred = _vector(values) - np.mean(_vector(values))
    sums = centred if clusters is None else _cluster_sums(centred, clusters)
    if len(sums) < 2:
        raise ValueError(f"A standard error needs at least 2 clusters, but got {len(sums)}; add problems")
    groups = len(sums)
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / len(centred))


def wilson(successes: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): within [0, 1] and sound at 0 and `total` successes."""
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"`successes` must be in [0, total] with total >= 1, but got {successes} of {total}")
    z = float(special.ndtri((1 + confidence) / 2))
    share = successes / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap_interval(
    differences: ArrayLike,
    generator: np.random.Generator,
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences (n,), resampling whole clusters with replacement.

    Efron and Tibshirani 1993, ch. 13; the mean is a ratio of resampled sums and sizes when clusters differ in size.
    """
    values = _vector(differences)
    names = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    sums, sizes = _cluster_sums(values, names), _cluster_sums(np.ones_like(values), names)
    if len(sums) < 2:
        raise ValueError(f"A bootstrap needs at least 2 clusters, but got {len(sums)}; add problems")
    kinds, counts = np.unique(np.column_stack([sums, sizes]), axis=0, return_counts=True)  # equal ones at once
    picks = generator.multinomial(len(sums), counts / len(sums), size=resamples)  # (resamples, kinds)
    means = (picks @ kinds[:, 0]) / (picks @ kinds[:, 1])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def sign_flip_test(differences: ArrayLike, *, max_denominator: int = 10_000) -> float:
    """Exact two-sided p-value of the paired permutation test: under the null each difference (n,) is as likely -d as d.

    The distribution of Σ ±|d_i| is computed by convolution on the lattice the differences lie on, as scores of counted
    samples do; O(n · Σ|d| · lattice). Raises ValueError when no lattice of step 1 / `max_denominator` or coarser fits.
    """
    values = _vector(differences)
    units, _ = _lattice(values, max_denominator)
    steps = np.abs(units[units != 0])
    observed, total = abs(int(units.sum())), int(steps.sum())
    masses = np.zeros(2 * total + 1)
    masses[total] = 1.0
    for step in steps:
        shifted = np.zeros_like(masses)
        shifted[step:] += 0.5 * masses[: len(masses) - step]
        shifted[: len(masses) - step] += 0.5 * masses[step:]
        masses = shifted
    extreme = np.abs(np.arange(-total, total + 1)) >= observed
    return float(min(1.0, masses[extreme].sum()))


def holm(p_values: ArrayLike) -> Array:
    """Adjusted p-values (M,): rejecting those at most α keeps the chance of any false rejection at α (Holm 1979)."""
    values = _vector(p_values)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


@dataclass(frozen=True, eq=False)
class Shrunken:
    """Estimates drawn towards what they have in common, so that the best of many is not overrated."""

    estimates: Array  # (M,)
    standard_errors: Array  # (M,) posterior
    centre: float
    spread: float
    """Standard deviation of the true values, estimated; 0 when chance explains all differences."""


def shrink(estimates: ArrayLike, standard_errors: ArrayLike, *, centre: float | None = None) -> Shrunken:
    """Empirical Bayes for M noisy estimates: x_i ~ N(θ_i, s_i²), θ_i ~ N(μ, τ²); μ (unless given) and τ by maximum
    marginal likelihood.

    θ̂_i = μ + τ² / (τ² + s_i²) · (x_i - μ) (Efron and Morris 1973). The posterior error takes μ and τ as known.
    """
    x, s = _vector(estimates), _vector(standard_errors)
    if x.shape != s.shape or not (s > 0).all() or (len(x) < 2 and centre is None):
        raise ValueError(f"`standard_errors` must be positive, one for each of at least 2 estimates; got {s} for {x}")

    def fitted_centre(variance: float) -> float:
        return float(np.average(x, weights=1 / (variance + s**2))) if centre is None else centre

    def loss(variance: float) -> float:
        total = variance + s**2
        return float(np.sum(np.log(total) + (x - fitted_centre(variance)) ** 2 / total))

    variance = _minimise(loss, upper=float(np.ptp(x) ** 2 + np.max((x - fitted_centre(0.0)) ** 2)))
    mu, weight = fitted_centre(variance), variance / (variance + s**2)
    return Shrunken(mu + weight * (x - mu), np.sqrt(weight) * s, mu, float(np.sqrt(variance)))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's ρ; None where all on one side are equal, and nothing can be said."""
    sides = list(zip(*pairs, strict=True))
    if any(len(set(side)) < 2 for side in sides):
        return None
    from scipy import stats  # half a second, which no other look at a study needs

    return float(stats.spearmanr(*sides).statistic)


def _minimise(loss: Any, upper: float) -> float:
    """The minimum of `loss` on [0, upper]: the marginal likelihood may have two peaks, so a grid comes first."""
    from scipy import optimize

    grid = np.concatenate([[0.0], np.geomspace(max(upper, 1e-12) * 1e-6, max(upper, 1e-12), 64)])
    best = int(np.argmin([loss(point) for point in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = float(optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    return min((0.0, float(grid[best]), found), key=loss)


def _lattice(values: Array, max_denominator: int) -> tuple[NDArray[np.int64], int]:
    """Integers u and a denominator D with values = u / D up to rounding."""
    denominator = 1
    for value in np.unique(np.abs(values)):
        nearest = Fraction(float(value)).limit_denominator(max_denominator)
        denominator = int(np.lcm(denominator, nearest.denominator))
        if abs(float(nearest) - value) > 1e-9 or denominator > max_denominator:
            raise ValueError(f"`differences` must be multiples of 1/{max_denominator} or coarser, but one is {value}")
    return np.rint(values * denominator).astype(np.int64), denominator


def _cluster_sums(values: Array, clusters: ArrayLike) -> Array:
    names = np.asarray(clusters)
    if names.shape != values.shape:
        raise ValueError(f"`clusters` must name one cluster per value, but got {names.shape} for {values.shape}")
    _, index = np.unique(names, return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64)


def _log_binomial(n: Array, k: int) -> Array:
    return np.where(n >= k, special.gammaln(n + 1) - special.gammaln(np.maximum(n - k, 0) + 1), -np.inf)


def _vector(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(f"Values must be a non-empty vector of finite numbers, but got shape {array.shape}")
    return array


def _matrix(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"`correct` must be (problems, samples) in [0, 1], but got shape {array.shape}")
    return array
