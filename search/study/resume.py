"""What may change between two starts of one study: whatever does not decide a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...spaces.errors import UserError
from .config import StudyConfig
from .config_file import parse_study

FREE = (
    "search.trials",
    "search.sampler",
    "search.startup_trials",
    "search.pruner",
    "confirmation",
    "storage",
    "tracking",
    "limits",
    "engine",
    "folder",
    "base",
    "training.micro_batch",
    "training.checkpoint_every",
    "evaluation.batch_size",
)
"""Fields, with everything below them, that a resumed study may set anew."""


@dataclass(frozen=True)
class Change:
    field: str
    stored: Any
    new: Any

    @property
    def free(self) -> bool:
        return any(self.field == name or self.field.startswith(f"{name}.") for name in FREE)


def compare(stored: Mapping[str, Any], new: StudyConfig) -> list[Change]:
    """Fields that differ between the stored configuration (JSON data) and the new one, in the file's order."""
    before, after = dict(_leaves(_in_todays_form(stored))), dict(_leaves(new.model_dump(mode="json")))
    names = [*after, *(name for name in before if name not in after)]
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _in_todays_form(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings that came with a later version have their defaults; what cannot be read any more stays as it is."""
    try:
        return parse_study(stored).model_dump(mode="json")
    except UserError:
        return stored


def refuse_changes(stored: Mapping[str, Any], new: StudyConfig) -> None:
    """Raise UserError when a field that decides trials has changed since the study was created."""
    decisive = [change for change in compare(stored, new) if not change.free]
    if not decisive:
        return
    lines = "; ".join(f"`{change.field}` is {change.new!r}, was {change.stored!r}" for change in decisive)
    raise UserError(
        f"study {new.study!r} must be resumed with the configuration it was created with, but {lines}. "
        f"Set it back, or give the study another name (`study: {new.study}-2`). Free to change: {', '.join(FREE)}",
        field=decisive[0].field,
    )


def refuse_other_inputs(stored: Mapping[str, str], found: Mapping[str, str], study: str) -> None:
    """Raise UserError when data, model or problems are not those the study was created with."""
    other = sorted(name for name in {*stored, *found} if stored.get(name) != found.get(name))
    if other:
        shown = "; ".join(f"{name} has fingerprint {_short(found, name)}, was {_short(stored, name)}" for name in other)
        raise UserError(
            f"study {study!r} must see the same inputs in every trial, but {shown}. "
            f"Restore the files, or give the study another name (`study: {study}-2`)",
            field=other[0],
        )


def _short(fingerprints: Mapping[str, str], name: str) -> str:
    return str(fingerprints.get(name, "absent"))[:12]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for index, below in enumerate(value):
            yield from _leaves(below, f"{path}[{index}]")
    else:
        yield path, value
