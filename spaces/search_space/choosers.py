"""Who draws the knobs of a point: an Optuna trial, a random generator, or parameters that are already known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..ranges import Range
from .knobs import Options
from .knobs import Value as Value


class Chooser(Protocol):
    """Whoever draws the knobs: an Optuna trial, a random generator, or fixed parameters."""

    def real(self, name: str, low: float, high: float, log: bool) -> float: ...

    def integer(self, name: str, low: int, high: int) -> int: ...

    def choice(self, name: str, options: Sequence[Value]) -> Value: ...


@dataclass(frozen=True)
class RandomChooser:
    """Draws each knob uniformly on its own scale."""

    generator: random.Random

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return Range(low=low, high=high, log=log).at(self.generator.random())

    def integer(self, name: str, low: int, high: int) -> int:
        return self.generator.randint(low, high)

    def choice(self, name: str, options: Sequence[Value]) -> Value:
        return self.generator.choice(list(options))


@dataclass(frozen=True)
class FixedChooser:
    """Gives each knob the value that `parameters` has for it; ValueError when it is missing or outside its range."""

    parameters: Mapping[str, Value]

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return float(self._inside(name, low, high))

    def integer(self, name: str, low: int, high: int) -> int:
        return int(self._inside(name, low, high))

    def choice(self, name: str, options: Sequence[Value]) -> Value:
        value = self._given(name)
        if value not in options:
            raise ValueError(f"parameter `{name}` must be one of {', '.join(map(str, options))}, but got {value!r}")
        return options[list(options).index(value)]

    def _inside(self, name: str, low: float, high: float) -> float:
        value = self._given(name)
        if isinstance(value, str) or not low <= value <= high:
            raise ValueError(f"parameter `{name}` must be in [{low:g}, {high:g}], but got {value!r}")
        return value

    def _given(self, name: str) -> Value:
        if name not in self.parameters:
            raise ValueError(f"parameter `{name}` is missing; given are {', '.join(self.parameters) or 'none'}")
        return self.parameters[name]


def draw(name: str, rule: Any, integer: bool, chooser: Chooser) -> Any:
    if isinstance(rule, Options):
        return chooser.choice(name, rule.options)
    if not isinstance(rule, Range):
        return rule
    if integer:
        return chooser.integer(name, int(rule.low), int(rule.high))
    return chooser.real(name, rule.low, rule.high, rule.log)
