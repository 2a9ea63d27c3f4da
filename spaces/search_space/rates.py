"""Learning rates of AdamW that are usual, by the size of the model and by what is trained: all weights, or adapters."""

from __future__ import annotations

from ..ranges import Range

RATE, SIZE, POWER = 5e-5, 5e8, 0.4
"""Usual at SIZE parameters when all weights are trained, and how it falls with size: a rule of thumb."""
ADAPTERS = 10.0
"""Adapters want learning rates about so many times as high."""
LOWEST, HIGHEST = 2e-6, 2e-3
AROUND, AROUND_UNKNOWN = 4.0, 10.0
"""How far a search looks to both sides, where the size is known and where it is not."""


def usual_rate(parameters: float, adapters: bool) -> float:
    """RATE · (SIZE / parameters)^POWER, ten times that for adapters, between LOWEST and HIGHEST; to one digit."""
    rate = RATE * (SIZE / parameters) ** POWER * (ADAPTERS if adapters else 1)
    return to_one_digit(min(HIGHEST, max(LOWEST, rate)))


def searched_rates(parameters: float | None, adapters: bool) -> Range:
    """What is searched where nobody says otherwise; None: the size is not known, so the range is wide."""
    middle = usual_rate(SIZE if parameters is None else parameters, adapters)
    factor = AROUND_UNKNOWN if parameters is None else AROUND
    return Range(low=to_one_digit(middle / factor), high=to_one_digit(middle * factor), log=True)


def to_one_digit(value: float) -> float:
    """5.3e-5 as 5e-5."""
    return float(f"{value:.0e}")
