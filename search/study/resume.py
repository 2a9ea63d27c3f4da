"""What may change between two starts of one study: whatever does not decide a trial."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...spaces.errors import UserError
from .config import StudyConfig
from .config_file import parse_study

FREE = (
    "search.trials",
    "search.stop_after",
    "search.sampler",
    "search.startup_trials",
    "search.pruner",
    "search.anchors",
    "full_steps",
    "confirmation",
    "confirms",
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
KEPT_FOR_LATER = "evaluation.report_problems"
"""A confirmation may ask for another number of problems; which ones the search sees stays as it was."""


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
    known = dict(_leaves(stored))
    return [
        Change(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name) and not (name not in known and _asks_for_the_old(name, after.get(name)))
    ]


def _asks_for_the_old(field: str, value: Any) -> bool:
    """Whether a setting that came with a later version is set to what earlier ones did."""
    return field.endswith(".system") and value is None


def decisive(stored: Mapping[str, Any], new: StudyConfig) -> list[Change]:
    """Fields that decide trials and differ."""
    free_too = set() if new.candidates else {KEPT_FOR_LATER}
    if new.date is None:  # the study's own is meant
        free_too.add("date")
    return [change for change in compare(stored, new) if not change.free and change.field not in free_too]


def as_searched(stored: Mapping[str, Any], today: StudyConfig) -> StudyConfig:
    """The configuration that trials ran with, and today's word on whatever does not decide them.

    Raises UserError when the stored one cannot be read any more.
    """
    found = parse_study({**stored, "study": today.study}).model_dump(mode="json")
    now = today.model_dump(mode="json")
    whole = {name: now[name] for name in FREE if name in now}
    parts: dict[str, Any] = {}
    for name in FREE:
        section, dot, leaf = name.partition(".")
        if dot:
            parts.setdefault(section, dict(found[section]))[leaf] = now[section][leaf]
    try:
        return parse_study({**found, **whole, **parts})
    except UserError:  # what is free today does not go with the rest as it was
        return parse_study({**found, **{name: whole[name] for name in ("storage", "tracking", "folder", "base")}})


def _in_todays_form(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings that came with a later version have their defaults; what cannot be read any more stays as it is."""
    try:
        return parse_study(stored).model_dump(mode="json")
    except UserError:
        return stored


def refuse_changes(stored: Mapping[str, Any], new: StudyConfig) -> None:
    """Raise UserError when a field that decides trials has changed since the study was created."""
    changes = decisive(stored, new)
    if changes:
        raise UserError(
            f"study {new.study!r} must be resumed with the configuration it was created with, but {said(changes)}. "
            f"Set it back, or give the study another name (`study: {new.study}-2`). "
            f"Free to change: {', '.join((*FREE, KEPT_FOR_LATER))}",
            field=changes[0].field,
        )


def said(changes: Iterable[Change]) -> str:
    """Changes in words."""
    return "; ".join(f"`{change.field}` is {change.new!r}, was {change.stored!r}" for change in changes)


def refuse_other_inputs(stored: Mapping[str, str], found: Mapping[str, str], study: str) -> None:
    """Raise UserError when data, model or problems are not those the study was created with."""
    if other := other_inputs(stored, found):
        raise UserError(
            f"study {study!r} must see the same inputs in every trial, but {_inputs_said(stored, found, other)}. "
            f"Restore the files, or give the study another name (`study: {study}-2`)",
            field=other[0],
        )


def hold_against(stored: Mapping[str, str], found: Mapping[str, str], study: str, what: str) -> None:
    """Raise UserError when something that both know is not what the search of `study` has seen; `what` is done now."""
    common = stored.keys() & found.keys()
    known = {name: stored[name] for name in common}
    if other := other_inputs(known, {name: found[name] for name in common}):
        raise UserError(
            f"{what} must use what the search of {study!r} used, but {_inputs_said(stored, found, other)}. "
            "Restore the files as they were then",
            field=other[0],
        )


def other_inputs(stored: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of the fingerprints that differ, or that only one has."""
    return sorted(name for name in {*stored, *found} if stored.get(name) != found.get(name))


def _inputs_said(stored: Mapping[str, str], found: Mapping[str, str], other: Iterable[str]) -> str:
    return "; ".join(f"{name} has fingerprint {_short(found, name)}, was {_short(stored, name)}" for name in other)


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
