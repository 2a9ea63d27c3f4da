"""Search ranges, declared once beside the validity of the field that they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, model_validator

from .settings import Settings


def _instead(data: Sequence[Any]) -> str:
    """How to write what a list that is no range may mean."""
    numbers = [each for each in data if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == len(data):
        return f"a list of values is {{options: {numbers}}}"
    if len(data) == 3 and len(numbers) == 2:
        return f"a logarithmic range is [{numbers[0]:g}, {numbers[1]:g}, log], a linear one has no third entry"
    return "a list of values is {options: [...]}, a fixed one stands alone"


class Range(Settings):
    """A closed interval that is searched: `[low, high]`, on a logarithmic scale when `log`."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: Any) -> Any:
        """`[low, high]` and `[low, high, log]` are short for the mapping; no other list is a range."""
        if not isinstance(data, list | tuple):
            return data
        if len(data) == 2 or (len(data) == 3 and data[2] == "log"):
            return {"low": data[0], "high": data[1], "log": len(data) == 3}
        raise ValueError(f"a range must be [low, high] or [low, high, log], but got {list(data)}; {_instead(data)}")

    @model_validator(mode="after")
    def _is_an_interval(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"`low` must be below `high`, but got [{self.low}, {self.high}]; give a number to fix it")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be above 0 on a log scale, but got low={self.low}; raise it or drop `log`")
        return self

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def at(self, share: float) -> float:
        """The point at `share` ∈ [0, 1] of the interval, on its own scale."""
        if self.log:
            logs = math.log(self.low), math.log(self.high)
            return min(self.high, max(self.low, math.exp(logs[0] + share * (logs[1] - logs[0]))))
        return min(self.high, self.low + share * (self.high - self.low))


@dataclass(frozen=True)
class Searched:
    """Marks a field as searched by default over `[low, high]` when its family is in play."""

    low: float
    high: float
    log: bool = False
    by_name: bool = False
    """Only where a space names the field: `search` then stands for this range."""

    def range(self) -> Range:
        """The same interval as a `Range`."""
        return Range(low=self.low, high=self.high, log=self.log)


def searched_fields(family: type[BaseModel], *, by_name: bool = True) -> dict[str, Range]:
    """The default search range of each field of `family` that declares one; `by_name`: those too that must be named."""
    marks = {
        name: mark
        for name, field in family.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Searched)
    }
    return {name: mark.range() for name, mark in marks.items() if by_name or not mark.by_name}
