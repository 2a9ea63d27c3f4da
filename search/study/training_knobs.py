"""Training settings that are searched along with the target: which there are, and what they may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ...spaces.errors import UserError
from ...spaces.ranges import Range
from ...spaces.search_space.knobs import Options
from ...trainers.settings import LoraSettings, TrainingSettings

ADAPTER_KNOBS = ("lora.rank", "lora.alpha", "lora.dropout")
"""Settings of adapters that can be searched."""


def _annotation(name: str) -> Any:
    fields = LoraSettings.model_fields if name in ADAPTER_KNOBS else TrainingSettings.model_fields
    return fields[name.rpartition(".")[2]].annotation


def check_names(names: Iterable[str], field: str) -> None:
    """Raise UserError when one of `names` is no training setting."""
    known = (*TrainingSettings.model_fields, *ADAPTER_KNOBS)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise UserError(
            f"`{field}` must name training settings, but got {', '.join(unknown)}; known are {', '.join(known)}",
            field=field,
        )


def check_searched(rules: Mapping[str, Range | Options | float], settings: TrainingSettings, field: str) -> None:
    """Raise UserError when a searched setting, beside the fixed ones of `settings`, may become what it must not be."""
    check_names(rules, field)
    for name, rule in rules.items():
        if name in ADAPTER_KNOBS and settings.lora is None:
            raise UserError(
                f"`{field}.{name}` is a setting of adapters, but `training.lora` is none; give it, or drop the knob",
                field=f"{field}.{name}",
            )
        whole = _annotation(name) is int
        if whole and isinstance(rule, Range):
            raise UserError(
                f"`{field}.{name}` takes whole numbers, which a range does not keep to, but got "
                f"[{rule.low:g}, {rule.high:g}]; list those to try: {{options: [{rule.low:g}, {rule.high:g}]}}",
                field=f"{field}.{name}",
            )
        for value in _ends(rule):
            _check_value(name, value, settings, f"{field}.{name}")


def _check_value(name: str, value: float | int | str, settings: TrainingSettings, field: str) -> None:
    try:
        settings.with_knobs({name: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise UserError(
            f"`{field}` must only hold what training takes, but got {value!r}: {reason}", field=field
        ) from None


def _ends(rule: Range | Options | float) -> tuple[float | int | str, ...]:
    if isinstance(rule, Range):
        return rule.low, rule.high
    return rule.options if isinstance(rule, Options) else (rule,)
