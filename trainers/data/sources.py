"""Where demonstrations come from, and what decides how the rows of each source are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...spaces.errors import UserError

if TYPE_CHECKING:
    from ..settings import DataSettings

FIELD = "data"
OWN = ("name", "split", "messages_column", "prompt_column", "completion_column", "text_column")
"""Settings that a source of a mixture may have for itself."""
SHARED = ("tools_column", "critical_column", "weight_column", "reference_logprob_column", "chat", "learn")


@dataclass(frozen=True)
class Source:
    """One file, pattern, folder or hub id, with what decides how its rows are read (`DataSettings`)."""

    path: str
    weight: float | None
    name: str | None
    split: str
    messages_column: str | None
    prompt_column: str | None
    completion_column: str | None
    text_column: str | None
    tools_column: str | None
    critical_column: str | None
    weight_column: str | None
    reference_logprob_column: str | None
    chat: bool
    learn: str


def sources(settings: DataSettings) -> list[Source]:
    """The sources of `path`, in their order. Raises UserError when one is named twice, or only some have a weight."""
    shared: dict[str, Any] = {
        key: getattr(settings, key, None) for key in SHARED
    }  # settings of an export lack what came later
    found = []
    for entry in [settings.path] if isinstance(settings.path, str) else settings.path:
        said = {} if isinstance(entry, str) else {key: getattr(entry, key) for key in ("path", "weight", *OWN)}
        own = {key: said.get(key) or getattr(settings, key) for key in OWN}
        path = entry if isinstance(entry, str) else entry.path
        found.append(Source(path=path, weight=said.get("weight"), **own, **shared))
    twice = [
        source for source, count in Counter((each.path, each.name, each.split) for each in found).items() if count > 1
    ]
    if twice:
        raise UserError(f"`path` must name every source once, but {twice[0][0]} is there twice", field=f"{FIELD}.path")
    weighted = [source.path for source in found if source.weight is not None]
    if 0 < len(weighted) < len(found):
        raise UserError(
            f"all sources of `path` must have a weight, or none, but only {', '.join(weighted)} has; give the others "
            "one too",
            field=f"{FIELD}.path",
        )
    return found
