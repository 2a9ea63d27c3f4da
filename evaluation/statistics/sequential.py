"""How small a p-value must be when one looks after every seed.

A test that is looked at again and again spends its error rate α in parts. By look n of N (seeds of the two that are
compared), α · ((n - 1) / (N - 1)) ** `SPENDING` of it may be spent (Lan and DeMets 1983): little at first, when a few
runs say little, and all of it at the last. Standardised differences at looks m < n are normal with correlation
sqrt(m / n); the boundary that spends each part follows by integrating over what has not crossed before (Armitage,
McPherson and Rowe 1969). It is kept as a one-sided p-value and used with the t distribution of the look (Pocock 1977):
whatever the degrees of freedom, a look takes its part.

One may stop early, leave looks out or drop out for any reason: that takes chances to be wrong, and adds none.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

FIRST_LOOK = 3
"""Seeds before anything is claimed: a variance from two runs is no variance."""
SPENDING = 0.6
"""Exponent of the spending function; 1 spends evenly."""
_POINTS = 600
_FARTHEST = 9.0
"""Standard deviations that stand for infinity."""


@lru_cache(maxsize=256)
def levels(error_rate: float, last: int, first: int = FIRST_LOOK) -> Mapping[int, float]:
    """Largest one-sided p-value that is significant at each look, from `first` seeds to `last`.

    Under the hypothesis any look is significant with probability `error_rate` at most. With `last` below `first`
    there is one look, at `last`. Raises ValueError for an error rate outside (0, 1), and fewer than 2 seeds.
    """
    if not 0 < error_rate < 1 or last < 2:
        raise ValueError(f"levels need an error rate in (0, 1) and at least 2 seeds, but got {error_rate} and {last}")
    if last <= first:
        return MappingProxyType({last: error_rate})
    looks = range(first, last + 1)
    spent = [error_rate * ((look - 1) / (last - 1)) ** SPENDING for look in looks]
    found, states, masses = [spent[0]], _grid(-float(ndtri(spent[0])), first), None
    for index, look in enumerate(looks):
        if masses is None:
            density = _normal(states / np.sqrt(look)) / np.sqrt(look)
        else:
            bound = _bound(spent[index] - spent[index - 1], states, masses, look)
            found.append(float(ndtr(-bound)))
            after = _grid(bound, look)
            density = _normal(after[:, None] - states) @ masses
            states = after
        masses = _weights(states) * density
    return MappingProxyType(dict(zip(looks, map(float, found), strict=True)))


@lru_cache(maxsize=256)
def last_score(error_rate: float, last: int) -> float:
    """What the last look asks of a lead, in standard errors."""
    return -float(ndtri(levels(error_rate, last)[last]))


def _grid(bound: float, look: int) -> NDArray[np.float64]:
    """Sums over `look` seeds that have not crossed a boundary given for the standardised sum."""
    return np.asarray(np.linspace(-_FARTHEST, bound, _POINTS) * np.sqrt(look))


def _weights(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the trapezoidal rule."""
    weights = np.full(len(states), states[1] - states[0])
    weights[[0, -1]] /= 2
    return weights


def _normal(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-(differences**2) / 2) / np.sqrt(2 * np.pi))


def _bound(part: float, states: NDArray[np.float64], masses: NDArray[np.float64], look: int) -> float:
    """The standardised boundary that `part` of the probability crosses at this look, by bisection."""
    low, high = 0.0, _FARTHEST
    for _ in range(50):
        middle = (low + high) / 2
        crossing = float(masses @ ndtr(states - middle * np.sqrt(look)))
        low, high = (middle, high) if crossing > part else (low, middle)
    return (low + high) / 2
