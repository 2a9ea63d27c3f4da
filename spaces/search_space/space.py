"""The searched part of the target space: families in play, the range or value of each knob, training knobs along.

A point has flat parameters: `gamma`, `gamma.power.exponent`, `residual.geometric.teacher`, `training.learning_rate`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from ..gamma.base import MODELS
from ..identity import canonical_id
from ..identity.equivalents import writings
from ..ranges import Range
from ..settings import Settings
from ..target import TargetSpec
from .choosers import Chooser, FixedChooser, RandomChooser, draw
from .knobs import (
    FAMILIES,
    Knobs,
    Options,
    TrainingRule,
    Value,
    allows,
    corners,
    family_knobs,
    inside,
    is_integer,
    is_searched,
    levels,
    text_of,
)

PARTS = ("gamma", "residual", "contrast", "weight")


@dataclass(frozen=True)
class Point:
    """One point of a space: a target, and the training knobs searched along with it."""

    target: TargetSpec
    training: dict[str, float] = field(default_factory=dict)


class Size(NamedTuple):
    """How large a space is."""

    dimensions: int
    """Most knobs that are drawn for one point."""
    combinations: int
    """Ways to pick the families."""
    points: int
    """Points of a grid with LEVELS values of each real knob (`knobs.py`)."""


class SearchSpace(Settings):
    """Which targets a study may try.

    A knob is a number (fixed), `[low, high]` or `[low, high, log]` (searched), `search` (searched over its declared
    range) or `{options: [...]}` (one of some values). A family's own knobs are searched over their declared ranges
    unless said otherwise; its modifiers (floor, ceiling, mix, temperature, truncation, ...) stay off unless named.

    The default is a compact core of seven dimensions that holds SFT, DFT, Beyond-log, distillation,
    SFT + distillation and Target-SFT as points.
    """

    gamma: dict[str, Knobs] = Field(
        default={"power": {"exponent": "search", "floor": "search", "ceiling": "search"}}, min_length=1
    )
    residual: dict[str, Knobs] = Field(default={"geometric": {"temperature": "search"}}, min_length=1)
    contrast: dict[str, Knobs] = Field(default={"none": {}}, min_length=1)
    """`none` is no signed term."""
    weight: dict[str, Knobs] = Field(default={"unit": {}}, min_length=1)
    """`anchored` is only drawn together with the γ family `anchored`."""
    training: dict[str, TrainingRule] = Field(default={"learning_rate": Range(low=5e-6, high=5e-4, log=True)})
    """Training knobs searched along: ranges or options; a number fixes one."""
    denominator: Literal["all", "kept", "weights"] = "all"

    @field_validator(*PARTS)
    @classmethod
    def _knobs_are_valid(cls, families: dict[str, Any], info: Any) -> dict[str, Any]:
        return {name: family_knobs(str(info.field_name), name, knobs) for name, knobs in families.items()}

    @model_validator(mode="after")
    def _weight_has_its_family(self) -> Self:
        if "anchored" in self.weight and "anchored" not in self.gamma:
            raise ValueError(
                "the weight rule `anchored` needs the γ family `anchored`, but only got "
                f"{', '.join(self.gamma)}; add it under `gamma` or drop the rule"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Inputs that some design of the space looks at."""
        return frozenset().union(*(self._family_needs(part, name) for part in PARTS for name in self._part(part)))

    @property
    def needs_rows(self) -> frozenset[str]:
        """Of which models some design of the space looks at more than the label's log-probability."""
        parts = [(part, name) for part in PARTS for name in self._part(part)]
        return frozenset().union(*(_needs_rows(part, name, self._rules(part, name)) for part, name in parts))

    @property
    def training_knobs(self) -> tuple[str, ...]:
        """Names of the training knobs that each point sets."""
        return tuple(self.training)

    def suggest(self, chooser: Chooser) -> Point:
        """The point that `chooser` draws."""
        content: dict[str, Any] = {"denominator": self.denominator}
        for part in PARTS:
            names = self._allowed(part, content.get("gamma", {}).get("kind", ""))
            family = str(chooser.choice(part, names)) if len(names) > 1 else names[0]
            knobs = {
                knob: draw(f"{part}.{family}.{knob}", rule, is_integer(part, family, knob), chooser)
                for knob, rule in self._rules(part, family).items()
            }
            content[part] = None if family == "none" else {"kind": family, **knobs}
        training = {name: float(draw(f"training.{name}", rule, False, chooser)) for name, rule in self.training.items()}
        return Point(TargetSpec.model_validate(content), training)

    def sample(self, seed: int) -> Point:
        """A point drawn uniformly (each real knob on its own scale)."""
        return self.suggest(RandomChooser(random.Random(seed)))

    def point(self, parameters: Mapping[str, Value]) -> Point:
        """The point of flat parameters; ValueError when one is missing or outside its range."""
        return self.suggest(FixedChooser(parameters))

    def parameters(self, point: Point) -> dict[str, Value] | None:
        """The flat parameters that `suggest` turns into `point`, or None when it lies outside the space.

        A target that is written in other families counts as inside when the space holds one with a provably equal
        gradient: SFT is the power family at exponent 0.
        """
        training = self._training_parameters(point.training)
        if training is None:
            return None
        for target in writings(point.target, self._families()):
            found = self._structural(target)
            if found is not None and self._same(point.target, found | training):
                return found | training
        return None

    def faults(self, parameters: Mapping[str, Value]) -> list[str]:
        """What is wrong with flat parameters, some or all of a point's; empty when a point may have them."""
        rules: dict[str, Any] = {f"training.{name}": rule for name, rule in self.training.items()}
        for part in PARTS:
            families = tuple(self._part(part))
            rules |= {part: Options(options=families)} if len(families) > 1 else {}
            for family in families:
                rules |= {f"{part}.{family}.{knob}": rule for knob, rule in self._rules(part, family).items()}
        known = [name for name, rule in rules.items() if is_searched(rule)]
        return [
            f"`{name}` must be in {text_of(rules[name])['range']}, but is {value!r}"
            if name in known
            else f"`{name}` is no parameter of it; known are {', '.join(known)}"
            for name, value in parameters.items()
            if name not in known or not allows(rules[name], value)
        ]

    def for_inputs(self, available: Collection[str]) -> Self:
        """The part of this space that needs nothing beyond `available`; ValueError when nothing is left."""
        update: dict[str, Any] = {}
        for part in PARTS:
            kept = {name: self._without(part, name, frozenset(available)) for name in self._part(part)}
            update[part] = {name: knobs for name, knobs in kept.items() if knobs is not None}
            if not update[part]:
                raise ValueError(
                    f"no family of `{part}` is left without the inputs the study lacks (it has "
                    f"{', '.join(sorted(available)) or 'none'}); add an input or another family"
                )
        return type(self).model_validate(self.model_dump() | update)

    def table(self) -> list[dict[str, str]]:
        """One row a knob, ready for JSON: parameter, range, scale, when it is drawn."""
        rows = []
        for part in PARTS:
            families = self._part(part)
            condition = "gamma = anchored" if part == "weight" and len(self.gamma) > 1 else "always"
            if len(families) > 1:
                rows.append({"parameter": part, "range": " | ".join(families), "scale": "choice", "when": condition})
            for name in families:
                when = f"{part} = {name}" if len(families) > 1 else condition
                rows += [
                    {"parameter": f"{part}.{name}.{knob}", **text_of(rule), "when": when}
                    for knob, rule in self._rules(part, name).items()
                ]
        training = [
            {"parameter": f"training.{name}", **text_of(rule), "when": "always"} for name, rule in self.training.items()
        ]
        return rows + training

    def __str__(self) -> str:
        rows = [["parameter", "range", "scale", "when"], *([*row.values()] for row in self.table())]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def size(self) -> Size:
        """An estimate of how much there is to search."""
        combinations = list(self._combinations())
        grids = [list(self._levels(combination)) for combination in combinations]
        choices = sum(len(self._part(part)) > 1 for part in PARTS)
        return Size(max(map(len, grids)) + choices, len(combinations), sum(map(math.prod, grids)))

    def _part(self, part: str) -> dict[str, Any]:
        families: dict[str, Any] = getattr(self, part)
        return families

    def _families(self) -> dict[str, tuple[str, ...]]:
        return {part: tuple(self._part(part)) for part in PARTS}

    def _allowed(self, part: str, gamma: str) -> list[str]:
        """Families of `part` that may be drawn when γ is of the family `gamma`."""
        if part == "weight" and gamma != "anchored":
            return ["unit"]
        return list(self._part(part))

    def _rules(self, part: str, family: str) -> dict[str, Any]:
        rules: dict[str, Any] = self._part(part).get(family, {})
        return rules

    def _family_needs(self, part: str, family: str) -> frozenset[str]:
        return _needs(part, family, self._rules(part, family))

    def _without(self, part: str, family: str, available: frozenset[str]) -> dict[str, Any] | None:
        """The knobs of a family that keep it inside `available`: shares and exponents of what is missing become 0."""
        rules = self._rules(part, family)
        missing = self._family_needs(part, family) - available
        fields = FAMILIES[part][family].model_fields
        rules = rules | {name: 0.0 for name in missing & set(fields)}
        try:
            left = _needs(part, family, rules)
        except ValueError:
            return None
        return None if left - available else rules

    def _structural(self, target: TargetSpec) -> dict[str, Value] | None:
        """The parameters of a target that is written in the families of this space, without those for training."""
        found: dict[str, Value] = {}
        for part in PARTS:
            model = getattr(target, part)
            family = "none" if model is None else model.kind
            allowed = self._allowed(part, target.gamma.kind)
            if family not in allowed:
                return None
            if len(allowed) > 1:
                found[part] = family
            for knob, rule in self._rules(part, family).items():
                value = inside(rule, getattr(model, knob), knob, model)
                if value is None:
                    return None
                if is_searched(rule):
                    found[f"{part}.{family}.{knob}"] = value
        return found

    def _training_parameters(self, training: Mapping[str, float]) -> dict[str, Value] | None:
        if set(training) != set(self.training):
            return None
        found = {name: inside(rule, training[name], name, self) for name, rule in self.training.items()}
        if None in found.values():
            return None
        return {f"training.{name}": found[name] for name, rule in self.training.items() if is_searched(rule)}

    def _same(self, target: TargetSpec, parameters: Mapping[str, Value]) -> bool:
        """Whether `suggest` turns `parameters` into a design with the gradient of `target`."""
        try:
            found = self.point(parameters).target
        except ValueError:
            return False
        return found == target or canonical_id(found) == canonical_id(target)

    def _combinations(self) -> Iterator[dict[str, str]]:
        for gamma in self.gamma:
            for picked in product(*(self._allowed(part, gamma) for part in PARTS[1:])):
                yield dict(zip(PARTS, (gamma, *picked), strict=True))

    def _levels(self, combination: Mapping[str, str]) -> Iterator[int]:
        """How many values each searched knob of a combination can take."""
        for part, family in combination.items():
            for knob, rule in self._rules(part, family).items():
                if isinstance(rule, Range) and is_integer(part, family, knob):
                    yield int(rule.high - rule.low) + 1
                elif is_searched(rule):
                    yield levels(rule)
        yield from (levels(rule) for rule in self.training.values() if is_searched(rule))


def _needs(part: str, family: str, rules: dict[str, Any]) -> frozenset[str]:
    """Inputs that some member of a family looks at."""
    return frozenset().union(*(getattr(corner, "needs", ()) for corner in corners(part, family, rules)))


def _needs_rows(part: str, family: str, rules: dict[str, Any]) -> frozenset[str]:
    """Models of which some member of a family looks at more than the label."""
    rows_of = "needs_rows" if part == "gamma" else "needs"
    return frozenset().union(*(getattr(corner, rows_of, ()) for corner in corners(part, family, rules))) & MODELS
