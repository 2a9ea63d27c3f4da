"""A search space in words and numbers: its table of knobs, and how much there is to search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from ..ranges import Range
from .knobs import is_integer, is_searched, levels, text_of

if TYPE_CHECKING:
    from .space import SearchSpace

PARTS = ("gamma", "residual", "contrast", "weight")
"""The parts of a target, in the order in which they are drawn."""


class Size(NamedTuple):
    """How large a space is."""

    dimensions: int
    """Most knobs that are drawn for one point."""
    combinations: int
    """Ways to pick the families."""
    points: int
    """Points of a grid with LEVELS values of each real knob (`knobs.py`)."""


def table(space: SearchSpace) -> list[dict[str, str]]:
    """One row a knob: parameter, range, scale, when it is drawn."""
    rows = []
    for part in PARTS:
        families = space.part(part)
        condition = "gamma = anchored" if part == "weight" and len(space.gamma) > 1 else "always"
        if len(families) > 1:
            rows.append({"parameter": part, "range": " | ".join(families), "scale": "choice", "when": condition})
        for name in families:
            when = f"{part} = {name}" if len(families) > 1 else condition
            rows += [
                {"parameter": f"{part}.{name}.{knob}", **text_of(rule), "when": when}
                for knob, rule in space.rules(part, name).items()
            ]
    training = [
        {"parameter": f"training.{name}", **text_of(rule), "when": "always"} for name, rule in space.training.items()
    ]
    return rows + training


def text(space: SearchSpace) -> str:
    """The table for people."""
    rows = [["parameter", "range", "scale", "when"], *([*row.values()] for row in table(space))]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def size(space: SearchSpace) -> Size:
    """An estimate of how much there is to search."""
    combinations = list(_combinations(space))
    grids = [list(_levels(space, combination)) for combination in combinations]
    choices = sum(len(space.part(part)) > 1 for part in PARTS)
    return Size(max(map(len, grids)) + choices, len(combinations), sum(map(math.prod, grids)))


def _combinations(space: SearchSpace) -> Iterator[dict[str, str]]:
    for gamma in space.gamma:
        for picked in product(*(space.allowed(part, gamma) for part in PARTS[1:])):
            yield dict(zip(PARTS, (gamma, *picked), strict=True))


def _levels(space: SearchSpace, combination: Mapping[str, str]) -> Iterator[int]:
    """How many values each searched knob of a combination can take."""
    for part, family in combination.items():
        for knob, rule in space.rules(part, family).items():
            if isinstance(rule, Range) and is_integer(part, family, knob):
                yield int(rule.high - rule.low) + 1
            elif is_searched(rule):
                yield levels(rule)
    yield from (levels(rule) for rule in space.training.values() if is_searched(rule))
