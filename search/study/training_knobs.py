"""Training settings that are searched along with the target: which there are, and what they may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from ...spaces.errors import UserError
from ...spaces.ranges import Range
from ...spaces.search_space.knobs import Options
from ...trainers.settings import TrainingSettings


def check_names(names: Iterable[str], field: str) -> None:
    """Raise UserError when one of `names` is no training setting."""
    unknown = sorted(set(names) - set(TrainingSettings.model_fields))
    if unknown:
        raise UserError(
            f"`{field}` must name training settings, but got {', '.join(unknown)}; "
            f"known are {', '.join(TrainingSettings.model_fields)}",
            field=field,
        )


def check_searched(rules: Mapping[str, Range | Options | float], settings: TrainingSettings, field: str) -> None:
    """Raise UserError when a searched setting, beside the fixed ones of `settings`, may become what it must not be."""
    check_names(rules, field)
    for name, rule in rules.items():
        whole = TrainingSettings.model_fields[name].annotation is int
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
        TrainingSettings.model_validate({**settings.model_dump(), name: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise UserError(
            f"`{field}` must only hold what training takes, but got {value!r}: {reason}", field=field
        ) from None


def _ends(rule: Range | Options | float) -> tuple[float | int | str, ...]:
    if isinstance(rule, Range):
        return rule.low, rule.high
    return rule.options if isinstance(rule, Options) else (rule,)
