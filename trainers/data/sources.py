"""Where demonstrations come from, what is kept of each source, and how much of it where several are mixed by weight."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...spaces.errors import UserError
from .demonstrations import Demonstration
from .notes import Notes

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


@dataclass(eq=False)
class Part:
    """What one source gives."""

    path: str
    weight: float | None
    examples: list[Demonstration] = field(default_factory=list)
    num_rows: int = 0
    num_too_long: int = 0
    num_without_loss: int = 0
    longest: tuple[int, str] = (0, "")
    """Tokens and place of the longest demonstration that was left out."""
    shortest: int = 0
    """Tokens of the shortest demonstration that was left out for its length; 0 where none was."""

    def take(self, examples: Iterable[Demonstration], max_length: int) -> None:
        """Keep what has a loss and fits, count the rest."""
        for example in examples:
            length = len(example.token_ids)
            if not example.num_labels:
                self.num_without_loss += 1
            elif length > max_length:
                self.num_too_long += 1
                self.longest = max(self.longest, (length, example.place))
                self.shortest = min(self.shortest or length, length)
            else:
                self.examples.append(example)


def chosen(parts: Sequence[Part], settings: DataSettings, notes: Notes) -> list[Demonstration]:
    """The demonstrations of all sources: by their weights where they have some, and at most `max_examples`.

    What is left out is drawn by a hash of content, so that neither order nor day decides. Raises UserError when
    nothing is left to choose from.
    """
    _refuse_nothing(parts, settings)
    _remark(parts, settings, notes)
    limit = settings.max_examples
    if parts[0].weight is None:
        return _drawn([example for part in parts for example in part.examples], limit, b"max_examples")
    counts = _shares(parts, limit)
    for part, count in zip(parts, counts, strict=True):
        notes.say(f"{part.path}: {count} of {len(part.examples)} demonstrations are used, by its weight")
    return [
        example
        for part, count in zip(parts, counts, strict=True)
        for example in _drawn(part.examples, count, f"mixture\0{part.path}\0".encode())
    ]


def _shares(parts: Sequence[Part], limit: int | None) -> list[int]:
    """As many of each as the weights allow before the first source runs out; none is repeated."""
    total = sum(part.weight or 0.0 for part in parts)
    shares = [(part.weight or 0.0) / total for part in parts]
    most = min(len(part.examples) / share for part, share in zip(parts, shares, strict=True))
    most = most if limit is None else min(most, limit)
    return [
        max(1, min(len(part.examples), round(most * share))) if part.examples else 0
        for part, share in zip(parts, shares, strict=True)
    ]


def _drawn(examples: list[Demonstration], count: int | None, name: bytes) -> list[Demonstration]:
    if count is None or count >= len(examples):
        return examples
    ranked = sorted(range(len(examples)), key=lambda number: hashlib.sha256(name + examples[number].content).digest())
    return [examples[number] for number in sorted(ranked[:count])]


def _refuse_nothing(parts: Sequence[Part], settings: DataSettings) -> None:
    bare = [part for part in parts if not part.examples]
    if not bare or (len(bare) < len(parts) and parts[0].weight is None):
        return
    part = bare[0]
    raise UserError(
        f"`max_length` must leave at least one demonstration, but all {part.num_rows} of {part.path} are longer than "
        f"max_length={settings.max_length} tokens or have an empty completion (the shortest has {part.shortest}); "
        "raise `max_length`",
        field=f"{FIELD}.max_length",
    )


def _remark(parts: Sequence[Part], settings: DataSettings, notes: Notes) -> None:
    """The share left out as too long, and demonstrations that are there more than once."""
    too_long, rows = sum(part.num_too_long for part in parts), sum(part.num_rows for part in parts)
    if too_long:
        length, place = max(part.longest for part in parts)
        notes.say(
            f"{too_long} of {rows} demonstrations ({100 * too_long / rows:.1f} %) are longer than max_length="
            f"{settings.max_length} tokens and left out (longest: {length} tokens, {place})"
        )
    seen: dict[bytes, str] = {}
    for example in (example for part in parts for example in part.examples):
        first = seen.setdefault(example.content, example.place)
        if first is not example.place:
            notes.count("a demonstration is there more than once, and learnt as often", example.place)
