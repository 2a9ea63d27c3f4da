"""The rules of a search space's knobs: fixed, a range, or options; each checked against the validity of its field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo

from ..gamma.base import MODELS, Gamma
from ..ranges import Range, searched_fields
from ..residual import Residual
from ..settings import Settings
from ..target import AnyContrast, AnyGamma, AnyResidual, Weight

Knobs = Any
"""The knobs of one family: name → number, range, options, `search`, or a setting as it is."""

Value = float | int | str
"""What a parameter may be."""

SEARCH = "search"
"""A knob with this value is searched over the range that its field declares."""


class Options(Settings):
    """A choice between values: names, or numbers between which nothing is drawn."""

    options: Annotated[tuple[float | int | str, ...], Field(min_length=1)]

    @field_validator("options")
    @classmethod
    def _each_once(cls, options: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(set(options)) < len(options):
            raise ValueError(f"`options` must be different values, but got {list(options)}; name each once")
        return options


def training_rule(value: Any) -> Any:
    """The rule of a training knob: a number, `[low, high]`, `[low, high, log]` or `{options: [...]}`.

    Raises ValueError for anything else.
    """
    if isinstance(value, Range | Options):
        return value
    rule = _parsed(value)
    if isinstance(rule, Options):
        return Options(options=tuple(map(_number, rule.options)))
    return rule if isinstance(rule, Range) else _number(rule)


TrainingRule = Annotated[Range | Options | float, BeforeValidator(training_rule)]


def _number(value: Any) -> float | int:
    """A number, also as text: YAML 1.1 reads 1e-5 as text."""
    try:
        number: float | int = value if isinstance(value, int) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise ValueError(
            f"a training knob must be a number, [low, high], [low, high, log] or {{options: [...]}}, but got {value!r}"
        )
    return number


def _kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The families of a union, by kind."""
    return {family.model_fields["kind"].default: family for family in get_args(union)}


LEVELS = 10
"""Values of a real knob that count as distinguishable when the size of a space is estimated."""

FAMILIES: dict[str, dict[str, type[BaseModel]]] = {
    "gamma": _kinds(AnyGamma),
    "residual": _kinds(AnyResidual),
    "contrast": {"none": Settings, **_kinds(AnyContrast)},
    "weight": {"unit": Weight, "anchored": Weight},
}
BASES: dict[str, type[BaseModel]] = {"gamma": Gamma, "residual": Residual, "contrast": Settings, "weight": Settings}


def family_knobs(part: str, family: str, knobs: Any) -> dict[str, Any]:
    """The rules of all knobs that are not at their defaults, checked: bounds inside validity, every corner a design.

    Raises:
        ValueError: an unknown family or knob, or a value out of validity; the message starts with its path.
    """
    if family not in FAMILIES[part]:
        raise ValueError(f"`{part}.{family}` is no family; known are {', '.join(FAMILIES[part])}")
    if not isinstance(knobs, dict | None):
        raise ValueError(f"`{part}.{family}` must map knobs to values, but got {knobs!r}; use {{}} for its defaults")
    model = FAMILIES[part][family]
    default = searched_fields(model, by_name=False)
    own = {name: rule for name, rule in default.items() if name not in BASES[part].model_fields}
    rules = {name: _rule(part, family, name, value, model) for name, value in (knobs or {}).items()}
    merged = ({} if part == "weight" else own) | rules
    for _ in corners(part, family, merged):
        pass
    return merged


def corners(part: str, family: str, rules: dict[str, Any]) -> Iterator[Any]:
    """The members of a family at all ends of its knobs' ranges.

    Raises:
        ValueError: a corner that is no valid member of the family.
    """
    ends = {name: _ends(rule) for name, rule in rules.items()}
    for values in product(*ends.values()):
        chosen = dict(zip(ends, values, strict=True))
        kind = {} if family == "none" else {"kind": family}
        try:
            yield FAMILIES[part][family].model_validate({**kind, **chosen})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"`{part}.{family}` must be valid at every corner, but at {chosen}: {reason}") from None


def inside(rule: Any, value: Any, knob: str, model: BaseModel) -> Any:
    """`value` as the parameter of a knob with this `rule`, or None when the rule does not allow it."""
    if value is None and knob == "ceiling" and isinstance(rule, Range) and isinstance(model, Gamma):
        # No ceiling is any ceiling that the family never reaches.
        return rule.high if rule.high >= model.bounds()[1] else None
    if isinstance(rule, Options):
        return next((option for option in rule.options if option == value), None)
    if isinstance(rule, Range):
        return value if value is not None and value in rule else None
    return True if _plain(value) == _plain(rule) else None


def is_searched(rule: Any) -> bool:
    """Whether a knob is drawn."""
    return isinstance(rule, Range | Options)


def allows(rule: Any, value: Any) -> bool:
    """Whether a parameter with a range or options may have this value."""
    if isinstance(rule, Options):
        return value in rule.options
    return isinstance(value, int | float) and not isinstance(value, bool) and value in rule


def any_of(rule: Any) -> Any:
    """A value that a rule allows."""
    if isinstance(rule, Options):
        return rule.options[0]
    return rule.low if isinstance(rule, Range) else rule


def needs_of(part: str, family: str, rules: dict[str, Any]) -> frozenset[str]:
    """Inputs that some member of a family looks at."""
    return frozenset().union(*(getattr(corner, "needs", ()) for corner in corners(part, family, rules)))


def rows_needed(part: str, family: str, rules: dict[str, Any]) -> frozenset[str]:
    """Models of which some member of a family looks at more than the label."""
    looked_at = "needs_rows" if part == "gamma" else "needs"
    return frozenset().union(*(getattr(corner, looked_at, ()) for corner in corners(part, family, rules))) & MODELS


def levels(rule: Any) -> int:
    """How many values of a real knob that is drawn count as distinguishable."""
    return len(rule.options) if isinstance(rule, Options) else LEVELS


def is_integer(part: str, family: str, knob: str) -> bool:
    """Whether a knob only takes whole numbers."""
    field = FAMILIES[part][family].model_fields[knob]
    return field.annotation is int or "int" in str(field.annotation)


def text_of(rule: Any) -> dict[str, str]:
    """Range and scale of a rule in words."""
    if isinstance(rule, Options):
        return {"range": " | ".join(map(_short, rule.options)), "scale": "choice"}
    if isinstance(rule, Range):
        return {"range": f"[{rule.low:g}, {rule.high:g}]", "scale": "log" if rule.log else "linear"}
    return {"range": _short(_plain(rule)), "scale": "fixed"}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _rule(part: str, family: str, name: str, value: Any, model: type[BaseModel]) -> Any:
    path = f"{part}.{family}.{name}"
    field = model.model_fields.get(name)
    if field is None or name == "kind":
        known = ", ".join(each for each in model.model_fields if each != "kind") or "none"
        raise ValueError(f"`{path}` is no knob of its family; known are {known}")
    if value == SEARCH:
        declared = searched_fields(model)
        if name not in declared:
            raise ValueError(f"`{path}` declares no search range; give one as [low, high]")
        return declared[name]
    try:
        rule = _parsed(value)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}") from None
    ends = [_check(path, field, end) for end in _ends(rule)]
    return Options(options=tuple(ends)) if isinstance(rule, Options) else rule


def _parsed(value: Any) -> Any:
    """A range or options, if `value` is written as one. Raises ValueError for one that is not whole."""
    model: type[Settings] | None = None
    if isinstance(value, list | tuple) or (isinstance(value, dict) and "low" in value):
        model = Range
    elif isinstance(value, dict) and "options" in value:
        model = Options
    if model is None:
        return value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors()[0]
        if found["type"] == "value_error":
            raise ValueError(found["msg"].removeprefix("Value error, ")) from None
        must = found["msg"].removeprefix("Input ").replace("should", "must", 1)
        raise ValueError(f"`{found['loc'][0]}` {must}, but got {value!r}") from None


def _check(path: str, field: FieldInfo, value: Any) -> Any:
    """The value as the field takes it."""
    annotation: Any = field.annotation
    try:
        return vars(create_model("Knob", knob=(annotation, field)).model_validate({"knob": value}))["knob"]
    except ValidationError as error:
        ways = "; a searched one is [low, high], [low, high, log], `search` or {options: [...]}"
        raise ValueError(
            f"`{path}` must lie inside its validity, but got {value!r}: {error.errors()[0]['msg']}"
            f"{ways if isinstance(value, str) else ''}"
        ) from None


def _ends(rule: Any) -> tuple[Any, ...]:
    if isinstance(rule, Options):
        return rule.options
    return (rule.low, rule.high) if isinstance(rule, Range) else (rule,)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value
