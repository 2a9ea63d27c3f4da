"""Settings and reasons as commented YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

WIDTH = 120


def study_text(settings: Mapping[str, Any], reasons: Mapping[str, str], head: str, notes: Mapping[str, str]) -> str:
    """The text of a study file; `notes`: comments of their own, by the section that they stand behind."""
    lines = [*_comment(head, ""), ""]
    for key, value in settings.items():
        lines += _entry(key, value, key, reasons, "")
        lines += _comment(notes.get(key, ""), "")
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, path: str, reasons: Mapping[str, str], indent: str) -> list[str]:
    reason = reasons.get(path, "")
    if isinstance(value, Mapping) and any(name.startswith(f"{path}.") for name in reasons):
        inner = [line for name, each in value.items() for line in _entry(name, each, f"{path}.{name}", reasons, "  ")]
        return ["", *_comment(reason, indent), f"{indent}{key}:", *inner]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return [*_comment(reason, indent), f"{indent}{key}:", *(f"{indent}  - {flow(each)}" for each in value)]
    line = f"{indent}{key}: {flow(value)}"
    beside = f"{line}{' ' * max(2, 34 - len(line))}# {reason}"
    if not reason:
        return [line]
    return [beside] if len(beside) <= WIDTH else [*_comment(reason, indent), line]


def flow(value: Any) -> str:
    """A value on one line, as YAML reads it back."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9).strip()[1:-1]


def _number(value: float) -> str:
    """YAML 1.1 takes `1e-05` for text."""
    text = f"{value:g}"
    mantissa, letter, power = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{int(power)}" if letter else text


def _comment(text: str, indent: str) -> list[str]:
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH - len(indent) - 2) or [""]]
    return [f"{indent}# {line}".rstrip() for line in lines]
