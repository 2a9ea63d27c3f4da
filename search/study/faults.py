"""Every fault of a file in words: its path in the file, the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ...spaces.errors import UserError
from .secrets import redact

_KINDS = {
    "model_type": "be a valid dictionary",
    "model_attributes_type": "be a valid dictionary",
    "tuple_type": "be a valid list",
}
"""Rules whose words in pydantic name our classes, or what YAML does not have."""
_SHALLOW = ("_type", "_parsing", "too_short", "literal_error")
"""Ends of the names of rules that a value breaks, too, when something inside of it is at fault."""


def refusal(
    error: ValidationError, source: str, read: Any, root: type[BaseModel], within: tuple[str, ...] = ()
) -> UserError:
    """Every fault of a file that `root` describes. `read`: what it holds, or holds at `within`."""
    faults = _joined(_fault(each, read, within, root) for each in error.errors(include_url=False))
    lines = dict.fromkeys(fault.line for fault in faults)
    return UserError(redact(f"{source}: " + "\n".join(lines)), field=faults[0].field)


def place(location: Sequence[int | str], read: Any, *, lacking: bool = False) -> str:
    """`("evaluation", "tasks", 0, "kind")` as `evaluation.tasks[0].kind`.

    Only what the file holds is named: types and validators on the way, which pydantic puts between, are left out.
    `lacking`: the last part is a key that should be there.
    """
    path = ""
    for number, part in enumerate(location, 1):
        if isinstance(read, Mapping) and part in read:
            path, read = _below(path, part), read[part]
        elif isinstance(part, int) and isinstance(read, Sequence) and not isinstance(read, str) and part < len(read):
            path, read = f"{path}[{part}]", read[part]
        elif lacking and number == len(location):
            path = _below(path, part)
    return path


@dataclass(frozen=True)
class Fault:
    """One broken rule; `must` and `got` where only the rule differs between the forms that a value may have."""

    field: str
    line: str
    must: str = ""
    got: str = ""
    of_kind: bool = False
    """Whether the value is of the wrong kind altogether."""


def _fault(error: Mapping[str, Any], read: Any, within: tuple[str, ...], root: type[BaseModel]) -> Fault:
    location: tuple[int | str, ...] = error["loc"]
    own = error.get("ctx", {}).get("error")
    if isinstance(own, UserError) and own.field is not None:
        return Fault(own.field, str(own))
    lacking = error["type"] == "missing"
    field = ".".join([*within, *filter(None, [place(location, read, lacking=lacking)])]) or "the file"
    if error["type"] == "extra_forbidden":
        return _unknown_key(field, (*within, *location), root)
    if lacking:
        return Fault(field, f"`{field}` must be given; add it")
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if error["type"] == "value_error":  # our own messages carry rule, value and remedy
        return Fault(field, _own_words(field, rule))
    must = _KINDS.get(error["type"]) or (
        rule.removeprefix("should ") if rule.startswith("should ") else f"be valid ({rule})"
    )
    got = _shown(error["input"])
    return Fault(field, _line(field, must, got), must, got, of_kind=error["type"].endswith(_SHALLOW))


def _own_words(field: str, rule: str) -> str:
    """Our own words on a field; where they begin with a path that starts at it, with the whole path."""
    start = re.match(r"`(\w+)(\.[\w.]+)`", rule)
    if start is None or start[1] != field.rpartition(".")[2]:
        return f"`{field}`: {rule}"
    return f"`{field}{start[2]}`{rule[start.end() :]}"


def _line(field: str, must: str, got: str) -> str:
    return f"`{field}` must {must}, but got {got}"


def _joined(found: Iterator[Fault]) -> list[Fault]:
    """Faults without those that only say which other form a value does not have."""
    faults = list(found)
    fields = {fault.field for fault in faults}
    kept: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        below = (f"{fault.field}.", f"{fault.field}[")
        if fault.of_kind and any(field.startswith(below) for field in fields):
            continue
        key = (fault.field, fault.got or fault.line)
        before = kept.get(key)
        if before is not None and fault.must and fault.must not in before.must:
            must = f"{before.must} or {fault.must.removeprefix('be ')}"
            fault = Fault(fault.field, _line(fault.field, must, fault.got), must, fault.got, fault.of_kind)
        kept[key] = fault
    return list(kept.values())


def _shown(value: Any) -> str:
    """A value in short, and how to mend it."""
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    if isinstance(value, Mapping) and len(value) == 1 and None in value.values():
        (name,) = value
        return f"{text}; YAML reads braces as a mapping, quote them if they are meant: '{{{name}}}'"
    return f"{text}; mend it"


def _unknown_key(field: str, location: Sequence[int | str], root: type[BaseModel]) -> Fault:
    *parents, leaf = location
    known = sorted({name for model in _models_at(parents, root) for name in model.model_fields})
    near = difflib.get_close_matches(str(leaf), known, n=1)
    remedy = f"did you mean `{near[0]}`? " if near else ""
    return Fault(field, f"`{field}` must be a known key, but is not; {remedy}known here: {', '.join(known)}")


def _models_at(location: Sequence[int | str], root: type[BaseModel]) -> list[type[BaseModel]]:
    models = [root]
    for part in location:
        if isinstance(part, str):
            narrowed = [model for model in models if _tag(model, part)]
            models = narrowed or [below for model in models for below in _field_models(model, part)] or models
    return models


def _field_models(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    return _inside(model.model_fields[key].annotation) if key in model.model_fields else []


def _inside(annotation: Any) -> list[type[BaseModel]]:
    """Settings models named anywhere in a type: unions, tuples, optionals."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [model for each in get_args(annotation) for model in _inside(each)]
    return []


def _tag(model: type[BaseModel], part: str) -> bool:
    """Whether pydantic names `part` to say which member of a union it means."""
    kind = model.model_fields.get("kind")
    return part == model.__name__ or (kind is not None and kind.default == part)


def _below(path: str, part: int | str) -> str:
    return f"{path}.{part}" if path else str(part)
