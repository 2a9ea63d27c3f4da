"""Is a design better than plain SFT? Decided once, on fresh seeds and untouched problems.

Scores are tables (P problems, S seeds): each design was retrained with the same S seeds and scored on the same P report
problems. For a design's paired differences D (P, S) to SFT, problems and seeds are both random draws from what one
wants to speak about (crossed random effects), so the variance of the mean difference is

    V = V_problem + max(0, V_seed - V_cell)

    V_problem = Var_p(mean over seeds of D) / P
    V_seed    = 2 MS / S, MS the residual mean square of the designs x seeds table of scores: pooled over all designs,
                because two or three seeds of one design say little
    V_cell    = mean square of D's interaction / (P S): what the two above both contain

and mean / sqrt(V) is compared with Student's t with Satterthwaite's degrees of freedom (Satterthwaite 1946). Pooling
takes the designs' seed noise to be alike. P-values are one-sided and corrected for how many designs were compared (Holm
1979): a wrong "better" anywhere has at most probability α, and so has a wrong "worse". Each interval leaves on either
side what Holm's procedure allowed that design, so that interval and verdict agree.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from qtarget.evaluation.statistics.stats import bootstrap_interval, holm, shrink

Array = NDArray[np.float64]


class Outcome(StrEnum):
    """What a confirmation may say of a design."""

    BETTER = "better than SFT"
    SAME = "not distinguishable from SFT"
    WORSE = "worse"


@dataclass(frozen=True)
class Comparison:
    """One design against plain SFT. Effects are score differences: 0.01 is one point."""

    title: str
    outcome: Outcome
    score: float
    """Mean over problems and seeds."""
    effect: float
    low: float
    high: float
    """Interval of the effect at `level`."""
    level: float
    """Confidence of the interval: 1 - 2 α / (designs still compared at this step of Holm's procedure). It ends where a
    difference of two scores must."""
    standard_error: float
    freedom: float
    """Degrees of freedom of the t distribution."""
    p_value: float
    """One-sided, in the direction of the effect."""
    adjusted_p_value: float
    shrunken: float
    """Effect drawn towards no effect by as much as the noise asks for: what to expect of a repetition."""
    seed_error: float
    """Part of the standard error that more problems would not remove."""
    bootstrap: tuple[float, float]
    """95 % interval from resampling problems alone: what holds for these very seeds."""


@dataclass(frozen=True)
class Confirmation:
    """The verdict on a study."""

    outcome: Outcome
    """BETTER if any design is; WORSE if all are; else SAME."""
    winner: str | None
    """The design with the largest shrunken effect among those better than SFT."""
    sft_score: float
    comparisons: tuple[Comparison, ...]
    problems: int
    seeds: int
    error_rate: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        best = max(self.comparisons, key=lambda comparison: comparison.effect)
        shown = next((c for c in self.comparisons if c.title == self.winner), best)
        return (
            f"{shown.title}: {shown.outcome}, {100 * shown.effect:+.1f} points "
            f"[{100 * shown.low:+.1f}, {100 * shown.high:+.1f}] on {self.problems} problems and {self.seeds} seeds"
        )


def confirm(
    sft: ArrayLike,
    designs: Mapping[str, ArrayLike],
    generator: np.random.Generator,
    *,
    error_rate: float = 0.05,
    resamples: int = 10_000,
) -> Confirmation:
    """Compare each design's scores (P, S) with those of plain SFT (P, S), problems and seeds in one order.

    `error_rate`: α, the chance of any wrong "better", and of any wrong "worse". Generator and `resamples` serve the
    bootstrap intervals only. Raises ValueError for tables of different shape, fewer than 2 problems or seeds, and no
    design.
    """
    base = _table(sft, "sft", None)
    tables = {title: _table(scores, title, base.shape) for title, scores in designs.items()}
    if not tables:
        raise ValueError("`designs` must name at least one design to compare with SFT, but is empty")
    seed_variance, seed_freedom = _seed_variance(base, list(tables.values()))
    tests = [_test(table - base, seed_variance, seed_freedom) for table in tables.values()]
    p_values = np.array([test.p_value for test in tests])
    adjusted, levels = holm(p_values), _step_levels(p_values, error_rate)
    shrunken = shrink([t.effect for t in tests], [max(t.error, 1e-12) for t in tests], centre=0.0).estimates
    comparisons = []
    for index, (title, table) in enumerate(tables.items()):
        test = tests[index]
        half = float(stats.t.ppf((1 + levels[index]) / 2, test.freedom)) * test.error
        comparisons.append(
            Comparison(
                title=title,
                outcome=_outcome(test.effect, bool(adjusted[index] <= error_rate)),
                score=float(table.mean()),
                effect=test.effect,
                low=max(-1.0, test.effect - half),
                high=min(1.0, test.effect + half),
                level=float(levels[index]),
                standard_error=test.error,
                freedom=test.freedom,
                p_value=test.p_value,
                adjusted_p_value=float(adjusted[index]),
                shrunken=float(shrunken[index]),
                seed_error=test.seed_error,
                bootstrap=bootstrap_interval((table - base).mean(axis=1), generator, resamples=resamples),
            )
        )
    return _verdict(tuple(comparisons), base, error_rate)


def _verdict(comparisons: tuple[Comparison, ...], base: Array, error_rate: float) -> Confirmation:
    better = [comparison for comparison in comparisons if comparison.outcome is Outcome.BETTER]
    winner = max(better, key=lambda comparison: comparison.shrunken, default=None)
    all_worse = all(comparison.outcome is Outcome.WORSE for comparison in comparisons)
    return Confirmation(
        outcome=Outcome.BETTER if better else Outcome.WORSE if all_worse else Outcome.SAME,
        winner=winner.title if winner is not None else None,
        sft_score=float(base.mean()),
        comparisons=comparisons,
        problems=base.shape[0],
        seeds=base.shape[1],
        error_rate=error_rate,
    )


@dataclass(frozen=True)
class _Test:
    effect: float
    error: float
    freedom: float
    p_value: float
    seed_error: float


def _test(differences: Array, seed_variance: float, seed_freedom: int) -> _Test:
    """t test of the mean of D (P, S) under crossed random effects."""
    problems, seeds = differences.shape
    effect = float(differences.mean())
    rows, columns = differences.mean(axis=1), differences.mean(axis=0)
    interaction = differences - rows[:, None] - columns + effect
    cell_freedom = (problems - 1) * (seeds - 1)
    cell = float((interaction**2).sum()) / cell_freedom / differences.size
    problem = float(rows.var(ddof=1)) / problems
    extra = max(0.0, seed_variance - cell)
    variance = problem + extra
    if variance == 0.0:
        return _Test(effect, 0.0, float(seed_freedom), 0.5 if effect == 0 else 0.0, 0.0)
    spread = problem**2 / (problems - 1) + seed_variance**2 / seed_freedom + cell**2 / cell_freedom
    freedom = variance**2 / spread
    p_value = float(stats.t.sf(abs(effect) / np.sqrt(variance), freedom))
    return _Test(effect, float(np.sqrt(variance)), float(freedom), p_value, float(np.sqrt(extra)))


def _seed_variance(base: Array, tables: list[Array]) -> tuple[float, int]:
    """(variance of a mean paired difference that the seeds cause, degrees of freedom), pooled over designs."""
    means = np.array([table.mean(axis=0) for table in (base, *tables)])  # (designs, seeds)
    residual = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    freedom = (means.shape[0] - 1) * (means.shape[1] - 1)
    return 2 * float((residual**2).sum()) / freedom / means.shape[1], freedom


def _step_levels(p_values: Array, error_rate: float) -> Array:
    """Confidence of each design's interval: that of its step of Holm's procedure, which ends at the first failure."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    allowed = error_rate / np.arange(count, 0, -1)
    failed = np.flatnonzero(p_values[order] > allowed)
    last = failed[0] if len(failed) else count - 1
    levels = np.empty(count)
    levels[order] = 1 - 2 * allowed[np.minimum(np.arange(count), last)]
    return levels


def _outcome(effect: float, significant: bool) -> Outcome:
    if not significant:
        return Outcome.SAME
    return Outcome.BETTER if effect > 0 else Outcome.WORSE


def _table(scores: ArrayLike, title: str, shape: tuple[int, ...] | None) -> Array:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"The scores of {title!r} must be finite, for at least 2 problems and 2 seeds, but have shape {table.shape}"
        )
    if shape is not None and table.shape != shape:
        raise ValueError(f"The scores of {title!r} must cover the problems and seeds of SFT {shape}, not {table.shape}")
    return table
