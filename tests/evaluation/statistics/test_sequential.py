"""Levels of repeated looks, against simulated random walks."""

import numpy as np
import pytest
from scipy import stats

from qtarget.evaluation.statistics.sequential import FIRST_LOOK, levels


@pytest.mark.parametrize(("error_rate", "last"), [(0.05, 4), (0.02, 12), (0.01, 22)])
def test_all_looks_together_spend_the_error_rate(error_rate: float, last: int) -> None:
    steps = np.random.default_rng(last).normal(size=(60_000, last))
    scores = steps.cumsum(axis=1) / np.sqrt(np.arange(1, last + 1))
    table = levels(error_rate, last)
    crossed = np.any([stats.norm.sf(scores[:, look - 1]) <= level for look, level in table.items()], axis=0)
    error = np.sqrt(error_rate / len(steps))
    assert crossed.mean() == pytest.approx(error_rate, abs=4 * error)
    assert list(table) == list(range(FIRST_LOOK, last + 1))


def test_one_look_spends_all() -> None:
    assert dict(levels(0.03, 3)) == {3: 0.03}
    assert dict(levels(0.03, 2)) == {2: 0.03}


def test_more_to_spend_is_more_at_every_look() -> None:
    little, much = levels(0.01, 10), levels(0.02, 10)
    assert all(little[look] < much[look] for look in little)
    assert sum(much.values()) > 0.02, "looks at the same data have less to spend together than apart"


@pytest.mark.parametrize(("error_rate", "last"), [(0.0, 5), (1.0, 5), (0.05, 1)])
def test_impossible_levels_are_refused(error_rate: float, last: int) -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        levels(error_rate, last)
