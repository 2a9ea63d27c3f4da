"""What a race is decided on: tables of scores of a real study, or runs of many simulated ones.

Letters: S studies, C candidates at the search's length and as many longer ones, P problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .leads import Array, Counts, Runs


class Tables:
    """The scores of one study: a table (P, seeds) a candidate, problems in one order, seeds as they were trained."""

    def __init__(self, tables: Sequence[ArrayLike]) -> None:
        """`tables`: 2C of them; one without runs is (P, 0).

        Raises ValueError for scores that are not finite, fewer than two problems, and tables of different problems.
        """
        self._tables = [np.asarray(table, dtype=np.float64) for table in tables]
        shapes = {table.shape[0] if table.ndim == 2 else 0 for table in self._tables}
        if len(shapes) != 1 or min(shapes) < 2 or not all(np.isfinite(table).all() for table in self._tables):
            raise ValueError(
                "scores must be finite tables (problems, seeds) of the same problems, at least 2, but got "
                f"{[table.shape for table in self._tables]}"
            )
        self.problems = shapes.pop()
        self._sums = [np.pad(table, ((0, 0), (1, 0))).cumsum(axis=1) for table in self._tables]

    @property
    def available(self) -> list[int]:
        """Runs that are there."""
        return [table.shape[1] for table in self._tables]

    def rows(self, index: int, seeds: int) -> Array:
        """(P,) mean score of each problem over the first `seeds` runs of a candidate."""
        found: Array = self._sums[index][:, seeds] / max(seeds, 1)
        return found

    def runs(self, seeds: Counts) -> Runs:
        scores = [table[:, :count].mean(axis=0) for table, count in zip(self._tables, seeds[0], strict=True)]
        means = [float(each.mean()) if len(each) else 0.0 for each in scores]
        variances = [float(each.var(ddof=1)) if len(each) > 1 else 0.0 for each in scores]
        return Runs(seeds, np.array([means]), np.array([variances]))

    def problem(self, weights: Array, seeds: Counts) -> Array:
        wanted = np.flatnonzero(weights[0])
        total = sum(weights[0, index] * self.rows(int(index), int(seeds[0, index])) for index in wanted)
        return np.array([np.var(total, ddof=1) / self.problems])

    def cell(self, seeds: Counts) -> Array:
        return np.where(seeds > 0, self._cells[None], 0.0)

    @cached_property
    def _cells(self) -> Array:
        """(2C,) from all runs there are: it is a nuisance, and its degrees of freedom are the problems'."""
        own = np.array([_cell(table) for table in self._tables])
        known = own[np.isfinite(own)]
        return np.where(np.isfinite(own), own, known.mean() if len(known) else 0.0)


def _cell(table: Array) -> float:
    """Mean square of the interaction of problems and seeds, divided by P; NaN below two seeds."""
    problems, seeds = table.shape
    if seeds < 2:
        return float("nan")
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    return float((rest**2).sum() / ((problems - 1) * (seeds - 1)) / problems)


@dataclass(frozen=True)
class World:
    """True scores and noise of simulated studies; all in units of the score."""

    scores: tuple[float, ...]
    """(C,) expected score of each candidate at the search's length."""
    noise: tuple[float, ...]
    """(C,) standard deviation between runs, without what problems add."""
    cell: float
    """What problems and sampling add to the standard deviation of a run."""
    problem: float = 0.0
    """Standard deviation of a lead over choices of the problems, which no seed removes."""
    longer: tuple[float, ...] | None = None
    """(C,) expected scores in the longer training; None: the same."""
    shared: float = 0.0
    """Correlation of the noise of two candidates under one seed."""
    tail: float | None = None
    """Degrees of freedom of Student's t for the noise, at the same standard deviation; None: normal."""


class Simulated:
    """Runs of S studies of a world, drawn at once."""

    problems = 10**6
    """So many that their degrees of freedom do not count."""

    def __init__(self, world: World, seeds: int, studies: int, generator: np.random.Generator) -> None:
        """`seeds`: most of any candidate."""
        self._world, count = world, len(world.scores)
        centre = np.array([*world.scores, *(world.longer or world.scores)])
        spread = np.tile(np.array(world.noise), 2)
        draws = self._draw(generator, (studies, 2 * count, seeds), world.tail)
        common = np.tile(self._draw(generator, (studies, 2, 1, seeds), world.tail), (1, 1, count, 1))
        mixed = np.sqrt(1 - world.shared) * draws + np.sqrt(world.shared) * common.reshape(draws.shape)
        lasting = world.problem / np.sqrt(2) * generator.normal(size=(studies, count))
        runs = centre[:, None] + spread[:, None] * mixed + np.tile(lasting, (1, 2))[..., None]
        runs += world.cell * generator.normal(size=runs.shape)
        self._sums = np.pad(runs, ((0, 0), (0, 0), (1, 0))).cumsum(axis=2)
        self._squares = np.pad(runs**2, ((0, 0), (0, 0), (1, 0))).cumsum(axis=2)

    @staticmethod
    def _draw(generator: np.random.Generator, shape: tuple[int, ...], tail: float | None) -> Array:
        if tail is None:
            return generator.normal(size=shape)
        return np.asarray(generator.standard_t(tail, size=shape) / np.sqrt(tail / (tail - 2)))

    def runs(self, seeds: Counts) -> Runs:
        sums, squares = (self._first(each, seeds) for each in (self._sums, self._squares))
        counts = np.maximum(seeds, 1)
        means = sums / counts
        variances = np.maximum(squares - counts * means**2, 0.0) / np.maximum(seeds - 1, 1)
        return Runs(seeds, means, np.where(seeds > 1, variances, 0.0))

    @staticmethod
    def _first(sums: Array, seeds: Counts) -> Array:
        return np.asarray(np.take_along_axis(sums, seeds[..., None], axis=2)[..., 0])

    def problem(self, weights: Array, seeds: Counts) -> Array:
        return np.asarray((weights**2 * self.cell(seeds) / np.maximum(seeds, 1)).sum(axis=1) + self._lasting(weights))

    def _lasting(self, weights: Array) -> Array:
        count = weights.shape[1] // 2
        together = weights[:, :count] + weights[:, count:]  # problems are the same ones in the longer training
        return np.asarray((together**2).sum(axis=1) * self._world.problem**2 / 2)

    def cell(self, seeds: NDArray[np.int64]) -> Array:
        return np.full(seeds.shape, self._world.cell**2)
