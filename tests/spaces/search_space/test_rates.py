"""Learning rates by size: one rule for the default range, for `init` and for what `check` doubts."""

import pytest

from qtarget.spaces import SearchSpace
from qtarget.spaces.ranges import Range
from qtarget.spaces.search_space.rates import HIGHEST, LOWEST, searched_rates, usual_rate


def test_larger_models_and_fewer_weights_want_other_rates() -> None:
    sizes = [1e6, 1.35e8, 5e8, 7e9, 7e10]
    full, adapters = ([usual_rate(size, each) for size in sizes] for each in (False, True))
    assert full == sorted(full, reverse=True) and full[2] == 5e-5
    assert adapters[2:] == pytest.approx([10 * rate for rate in full[2:]], rel=0.1)
    assert usual_rate(1, True) == HIGHEST and usual_rate(1e15, False) == LOWEST


@pytest.mark.parametrize("adapters", [False, True])
def test_a_range_of_unknown_size_holds_those_of_usual_sizes(adapters: bool) -> None:
    wide = searched_rates(None, adapters)
    for size in (1.35e8, 5e8, 1.5e9, 7e9):
        found = searched_rates(size, adapters)
        assert wide.low <= found.low < usual_rate(size, adapters) < found.high <= wide.high and found.log


def test_the_default_of_a_space_is_the_rule_without_a_size() -> None:
    assert SearchSpace().training == {"learning_rate": searched_rates(None, adapters=False)}
    assert searched_rates(None, adapters=False) == Range(low=5e-6, high=5e-4, log=True)
