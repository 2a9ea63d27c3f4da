"""The confirmation before candidates raced, as far as `races.py` holds the race against it: all seeds, then one test.

Scores are tables (P problems, S seeds); every design has the S seeds and P problems of plain SFT. Of a design's paired
differences D (P, S) problems and seeds are both random draws, so their mean has the variance

    V = V_problem + max(0, V_seed - V_cell)

    V_problem = Var_p(mean over seeds of D) / P
    V_seed    = 2 MS / S, MS the residual mean square of the designs x seeds table of scores: pooled over all designs,
                which takes them to be equally noisy
    V_cell    = mean square of D's interaction / (P S): what the two above both contain

and mean / sqrt(V) is compared with Student's t with Satterthwaite's degrees of freedom (1946), one-sided and corrected
for how many designs are compared (Holm 1979).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qtarget.evaluation.statistics.stats import holm

Array = NDArray[np.float64]


def better(sft: Array, designs: Mapping[str, Array], error_rate: float = 0.05) -> set[str]:
    """Titles of the designs (P, S) that are said to be better than plain SFT (P, S)."""
    seed_variance, seed_freedom = _seed_variance([sft, *designs.values()])
    differences = [scores - sft for scores in designs.values()]
    adjusted = holm([_p_value(each, seed_variance, seed_freedom) for each in differences])
    significant = zip(designs, differences, adjusted, strict=True)
    return {title for title, each, p_value in significant if p_value <= error_rate and each.mean() > 0}


def _seed_variance(tables: list[Array]) -> tuple[float, int]:
    """(V_seed, degrees of freedom)."""
    means = np.array([table.mean(axis=0) for table in tables])
    residual = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    freedom = (means.shape[0] - 1) * (means.shape[1] - 1)
    return 2 * float((residual**2).sum()) / freedom / means.shape[1], freedom


def _p_value(differences: Array, seed_variance: float, seed_freedom: int) -> float:
    """One-sided, in the direction of the mean of D (P, S)."""
    problems, seeds = differences.shape
    rows = differences.mean(axis=1)
    interaction = differences - rows[:, None] - differences.mean(axis=0) + differences.mean()
    cell_freedom = (problems - 1) * (seeds - 1)
    cell = float((interaction**2).sum()) / cell_freedom / differences.size
    problem = float(rows.var(ddof=1)) / problems
    variance = problem + max(0.0, seed_variance - cell)
    spread = problem**2 / (problems - 1) + seed_variance**2 / seed_freedom + cell**2 / cell_freedom
    return float(stats.t.sf(abs(differences.mean()) / np.sqrt(variance), variance**2 / spread))
