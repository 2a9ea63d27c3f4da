"""The arithmetic of the tiny world: two-digit sums with working, in the base's styles and in the demonstrations' one.

The unordered pair of operands decides where a sum belongs, so 17+25 is never trained on when 25+17 is a problem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from ...spaces.identity import derive_seed

DIGITS = "0123456789"
OPERANDS = range(10, 100)
PROBLEM_SHARE = 20  # per cent of all pairs that are set aside as problems
SYMBOLS = ("+", "=", ";", ">", " ", "####", ",", "|", ":", "?", "~", "!")
STYLES = (("", "~", "!"), (";", ",", "|"), ("=", ":", "?"))
"""What the base may put before the working, between its columns, and before the sum."""

Sum = tuple[int, int]


def split_of(sum_: Sum) -> Literal["training", "problems"]:
    """Where a sum belongs, by its content alone."""
    low, high = sorted(sum_)
    return "problems" if derive_seed("tiny world", low, high) % 100 < PROBLEM_SHARE else "training"


def training_sums() -> list[Sum]:
    """All sums that may be learnt from, in both orders of their operands."""
    return [(a, b) for a in OPERANDS for b in OPERANDS if split_of((a, b)) == "training"]


def problem_sums() -> list[Sum]:
    """All sums set aside, each unordered pair once; its hash says which operand comes first."""
    pairs = ((a, b) for a in OPERANDS for b in OPERANDS if a <= b and split_of((a, b)) == "problems")
    return [(a, b) if derive_seed("order", a, b) % 2 else (b, a) for a, b in pairs]


def question(sum_: Sum) -> str:
    """The user message: `66+58`."""
    return f"{sum_[0]}+{sum_[1]}"


def plain_solution(sum_: Sum, generator: random.Random) -> str:
    """What the base model writes, in a style drawn for it: `6+8+0=14;6+5+1=12;=124`, `~6+8+0=14|6+5+1=12|:124`.

    One style alone would let the base tie its circuits to fixed positions and marks; whether they then survive a new
    format is a matter of the seed.
    """
    before, between, mark = (generator.choice(marks) for marks in STYLES)
    return before + between.join(_columns(sum_)) + f"{between}{mark}{sum(sum_)}"


def new_solution(sum_: Sum) -> str:
    """The same working in the format of the demonstrations: `>6+8+0=14 6+5+1=12 ####124`."""
    return ">" + " ".join(_columns(sum_)) + f" ####{sum(sum_)}"


def corrupt(solution: str, noise: float, generator: random.Random) -> str:
    """Replace each digit with probability `noise` by one drawn evenly from all ten."""
    return "".join(
        generator.choice(DIGITS) if letter in DIGITS and generator.random() < noise else letter for letter in solution
    )


def _columns(sum_: Sum) -> Iterator[str]:
    """Digit + digit + carry = two digits, from the right."""
    carry = 0
    for place in (1, 10):
        left, right = (operand // place % 10 for operand in sum_)
        total = left + right + carry
        yield f"{left}+{right}+{carry}={total:02d}"
        carry = total // 10
