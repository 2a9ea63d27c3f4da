"""The searched part of the target space: families in play, the range or value of each knob, training knobs along.

A point has flat parameters: `gamma`, `gamma.power.exponent`, `residual.geometric.teacher`, `training.learning_rate`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..identity import canonical_id
from ..identity.equivalents import writings
from ..settings import GrownSettings
from ..target import TargetSpec
from .choosers import Chooser, FixedChooser, RandomChooser, draw
from .describe import PARTS, Size, size, table, text
from .everything import SPACES, starts
from .knobs import (
    FAMILIES,
    Knobs,
    Options,
    TrainingRule,
    Value,
    allows,
    any_of,
    family_knobs,
    inside,
    is_integer,
    is_searched,
    needs_of,
    rows_needed,
    text_of,
)
from .rates import searched_rates


@dataclass(frozen=True)
class Point:
    """One point of a space: a target, and the training knobs searched along with it."""

    target: TargetSpec
    training: dict[str, float] = field(default_factory=dict)


class SearchSpace(GrownSettings):
    """Which targets a study may try; a name stands for a space of its own (`everything`).

    A knob is a number (fixed), `[low, high]` or `[low, high, log]` (searched), `search` (searched over its declared
    range) or `{options: [...]}` (one of some values). A family's own knobs are searched over their declared ranges
    unless said otherwise; its modifiers (floor, ceiling, mix, temperature, truncation, ...) stay off unless named.

    The default is a compact core of seven dimensions that holds SFT, DFT, Beyond-log, distillation,
    SFT + distillation and Target-SFT as points. `everything` has every family, of which each starts at its published
    point; it wants hundreds of trials, and shrinks to what the study's inputs allow.
    """

    preset: Literal["everything"] | None = None
    """Takes the parts that are not given from the space of this name."""

    gamma: dict[str, Knobs] = Field(
        default={"power": {"exponent": "search", "floor": "search", "ceiling": "search"}}, min_length=1
    )
    residual: dict[str, Knobs] = Field(default={"geometric": {"temperature": "search"}}, min_length=1)
    contrast: dict[str, Knobs] = Field(default={"none": {}}, min_length=1)
    """`none` is no signed term."""
    weight: dict[str, Knobs] = Field(default={"unit": {}}, min_length=1)
    """`anchored` is only drawn together with the γ family `anchored`."""
    training: dict[str, TrainingRule] = Field(default={"learning_rate": searched_rates(None, adapters=False)})
    """Training knobs searched along: ranges or options; a number fixes one."""
    denominator: Literal["all", "kept", "weights"] = "all"

    LATER: ClassVar[frozenset[str]] = frozenset({"preset"})

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        given = {"preset": given} if isinstance(given, str) else given
        name = given.get("preset") if isinstance(given, dict) else None
        return {**SPACES[name], **given} if isinstance(name, str) and name in SPACES else given

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
        return frozenset().union(*(self._family_needs(part, name) for part in PARTS for name in self.part(part)))

    @property
    def needs_rows(self) -> frozenset[str]:
        """Of which models some design of the space looks at more than the label's log-probability."""
        parts = [(part, name) for part in PARTS for name in self.part(part)]
        return frozenset().union(*(rows_needed(part, name, self.rules(part, name)) for part, name in parts))

    @property
    def asked(self) -> frozenset[str]:
        """Fields that somebody has given, not a preset."""
        if self.preset is None:
            return frozenset(self.model_fields_set)
        plain = type(self)(preset=self.preset)
        return frozenset(name for name in self.model_fields_set if getattr(self, name) != getattr(plain, name))

    @property
    def training_knobs(self) -> tuple[str, ...]:
        """Names of the training knobs that each point sets."""
        return tuple(self.training)

    def suggest(self, chooser: Chooser) -> Point:
        """The point that `chooser` draws."""
        content: dict[str, Any] = {"denominator": self.denominator}
        for part in PARTS:
            names = self.allowed(part, content.get("gamma", {}).get("kind", ""))
            family = str(chooser.choice(part, names)) if len(names) > 1 else names[0]
            knobs = {
                knob: draw(f"{part}.{family}.{knob}", rule, is_integer(part, family, knob), chooser)
                for knob, rule in self.rules(part, family).items()
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

    def holds(self, target: TargetSpec) -> bool:
        """Whether a target is a point of the space, whatever its training."""
        training = {name: float(any_of(rule)) for name, rule in self.training.items()}
        return self.parameters(Point(target, training)) is not None

    def starts(self, available: Collection[str]) -> dict[str, TargetSpec]:
        """Where each family starts, by the preset it is: of a space with a name, its published points."""
        return {} if self.preset is None else starts(self, available)

    def faults(self, parameters: Mapping[str, Value]) -> list[str]:
        """What is wrong with flat parameters, some or all of a point's; empty when a point may have them."""
        rules: dict[str, Any] = {f"training.{name}": rule for name, rule in self.training.items()}
        for part in PARTS:
            families = tuple(self.part(part))
            rules |= {part: Options(options=families)} if len(families) > 1 else {}
            for family in families:
                rules |= {f"{part}.{family}.{knob}": rule for knob, rule in self.rules(part, family).items()}
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
            kept = {name: self._without(part, name, frozenset(available)) for name in self.part(part)}
            update[part] = {name: knobs for name, knobs in kept.items() if knobs is not None}
            if not update[part]:
                raise ValueError(
                    f"no family of `{part}` is left without the inputs the study lacks (it has "
                    f"{', '.join(sorted(available)) or 'none'}); add an input or another family"
                )
        return type(self).model_validate(self.model_dump() | update)

    def table(self) -> list[dict[str, str]]:
        """One row a knob, ready for JSON: parameter, range, scale, when it is drawn."""
        return table(self)

    def __str__(self) -> str:
        return text(self)

    def size(self) -> Size:
        """An estimate of how much there is to search."""
        return size(self)

    def part(self, part: str) -> dict[str, Any]:
        """The families of a part, with the rules of their knobs."""
        families: dict[str, Any] = getattr(self, part)
        return families

    def _families(self) -> dict[str, tuple[str, ...]]:
        return {part: tuple(self.part(part)) for part in PARTS}

    def allowed(self, part: str, gamma: str) -> list[str]:
        """Families of `part` that may be drawn when γ is of the family `gamma`."""
        if part == "weight" and gamma != "anchored":
            return ["unit"]
        return list(self.part(part))

    def rules(self, part: str, family: str) -> dict[str, Any]:
        """The rules of a family's knobs."""
        rules: dict[str, Any] = self.part(part).get(family, {})
        return rules

    def _family_needs(self, part: str, family: str) -> frozenset[str]:
        return needs_of(part, family, self.rules(part, family))

    def _without(self, part: str, family: str, available: frozenset[str]) -> dict[str, Any] | None:
        """The knobs of a family that keep it inside `available`: shares and exponents of what is missing become 0."""
        rules = self.rules(part, family)
        missing = self._family_needs(part, family) - available
        fields = FAMILIES[part][family].model_fields
        rules = rules | {name: 0.0 for name in missing & set(fields)}
        try:
            left = needs_of(part, family, rules)
        except ValueError:
            return None
        return None if left - available else rules

    def _structural(self, target: TargetSpec) -> dict[str, Value] | None:
        """The parameters of a target that is written in the families of this space, without those for training."""
        found: dict[str, Value] = {}
        for part in PARTS:
            model = getattr(target, part)
            family = "none" if model is None else model.kind
            allowed = self.allowed(part, target.gamma.kind)
            if family not in allowed:
                return None
            if len(allowed) > 1:
                found[part] = family
            for knob, rule in self.rules(part, family).items():
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
