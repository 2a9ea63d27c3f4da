"""Numbers in the spellings of answers, against Python's own fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtarget.evaluation.reading.numeric import read_number, same_number
from qtarget.evaluation.reading.typography import typeset

DECIMALS = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=3)


def value_of(text: str) -> Fraction | None:
    found = read_number(text)
    return None if found is None else found.value


@given(DECIMALS)
def test_a_decimal_is_read_exactly_in_every_spelling(value: Decimal) -> None:
    for spelling in (f"{value:f}", f"{value:,f}", f"x = {value:f}", f"\\text{{{value:f}}}", f"${value:f}$"):
        assert value_of(spelling) == Fraction(value), spelling


@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_a_quotient_however_it_is_set(top: int, bottom: int) -> None:
    sign = "-" if top < 0 else ""
    for spelling in (
        f"{top}/{bottom}",
        f"{sign}\\frac{{{abs(top)}}}{{{bottom}}}",
        f"{sign}\\dfrac{{{abs(top)}}}{{{bottom}}}",
    ):
        assert value_of(spelling) == Fraction(top, bottom), spelling


@pytest.mark.parametrize("text", ["5 or 6", "2x + 3", "x > 5", "at least 5", "not 5", "", "five-ish", "1/0"])
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert read_number(text) is None


def test_integers_are_compared_exactly_and_decimals_within_the_tolerance() -> None:
    gold, close = read_number("0.333333"), read_number("0.33333333")
    assert gold is not None and close is not None and same_number(gold, close, tolerance=1e-5)
    whole, near = read_number("1000000000"), read_number("1000000001")
    assert whole is not None and near is not None and not same_number(whole, near, tolerance=1e-5)


def test_one_typography() -> None:
    assert typeset("½") == typeset("\\frac{1}{2}") and typeset("−5") == typeset("-5")
