"""The rules of a search space's knobs: fixed, a range, or options; each checked against the validity of its field."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from ..gamma.base import Gamma
from ..ranges import Range, searched_fields
from ..residual import Residual
from ..settings import Settings
from ..target import AnyContrast, AnyGamma, AnyResidual, Weight

Knobs = Any
"""The knobs of one family: name → number, range, options, `search`, or a setting as it is."""

SEARCH = "search"
"""A knob with this value is searched over the range that its field declares."""


class Options(Settings):
    """A choice between names."""

    options: tuple[str, ...]


def _kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The families of a union, by kind."""
    return {family.model_fields["kind"].default: family for family in get_args(union)}


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
    own = {name: rule for name, rule in searched_fields(model).items() if name not in BASES[part].model_fields}
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
        return value if value in rule.options else None
    if isinstance(rule, Range):
        return value if value is not None and value in rule else None
    return True if _plain(value) == _plain(rule) else None


def is_searched(rule: Any) -> bool:
    """Whether a knob is drawn."""
    return isinstance(rule, Range | Options)


def is_integer(part: str, family: str, knob: str) -> bool:
    """Whether a knob only takes whole numbers."""
    field = FAMILIES[part][family].model_fields[knob]
    return field.annotation is int or "int" in str(field.annotation)


def text_of(rule: Any) -> dict[str, str]:
    """Range and scale of a rule in words."""
    if isinstance(rule, Options):
        return {"range": " | ".join(rule.options), "scale": "choice"}
    if isinstance(rule, Range):
        return {"range": f"[{rule.low:g}, {rule.high:g}]", "scale": "log" if rule.log else "linear"}
    return {"range": f"{rule:g}" if isinstance(rule, float | int) else str(_plain(rule)), "scale": "fixed"}


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
    rule = _parsed(value)
    for end in _ends(rule):
        _check(path, field, end)
    return rule


def _parsed(value: Any) -> Any:
    if isinstance(value, dict) and "low" in value:
        return Range.model_validate(value)
    if isinstance(value, dict) and "options" in value:
        return Options.model_validate(value)
    return Range.model_validate(value) if isinstance(value, list | tuple) else value


def _check(path: str, field: FieldInfo, value: Any) -> None:
    annotation: Any = field.annotation
    try:
        create_model("Knob", knob=(annotation, field)).model_validate({"knob": value})
    except ValidationError as error:
        raise ValueError(
            f"`{path}` must lie inside its validity, but got {value!r}: {error.errors()[0]['msg']}"
        ) from None


def _ends(rule: Any) -> tuple[Any, ...]:
    if isinstance(rule, Options):
        return rule.options
    return (rule.low, rule.high) if isinstance(rule, Range) else (rule,)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value
