"""Demonstrations from files, folders and hub data sets: read, rendered, tokenised, mixed and cut to size."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from ...spaces.errors import UserError
from .demonstrations import Demonstrations, Part, chosen
from .files import read_path
from .formats import Row
from .notes import Notes
from .shapes import Read, turn_reader
from .sources import Source, sources
from .style import Style, StyleWatch
from .template import ChatTemplate
from .tokenization import tokenize
from .turns import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..settings import DataSettings

TOKENIZE_BATCH = 1000
FIELD = "data"


def load_demonstrations(
    settings: DataSettings, tokenizer: PreTrainedTokenizerBase, base: Path, *, day: datetime.date | None = None
) -> Demonstrations:
    """Read, render through the chat template and tokenise; relative paths start at `base`.

    `day`: what a template prints as today; default: today.

    Raises UserError for a missing file, column or chat template, for a row that breaks a rule (with file, line, column
    and remedy), for an empty data set, and when no demonstration fits into `max_length`.
    """
    if settings.critical_column is not None and not tokenizer.is_fast:
        raise UserError(
            "`critical_column` needs a fast tokenizer (it maps characters to tokens), but "
            f"{type(tokenizer).__name__} is a slow one; use a model with a tokenizer.json",
            field=f"{FIELD}.critical_column",
        )
    day = day or datetime.date.today()
    template = ChatTemplate(tokenizer, day, dict(settings.chat_template_kwargs))
    notes, watch = Notes(), StyleWatch()
    for name in template.unread():
        notes.say(f"the chat template reads no variable `{name}`: `{FIELD}.chat_template_kwargs` changes nothing by it")
    parts = [_part(source, settings, template, base, notes, watch) for source in sources(settings)]
    kept = chosen(parts, settings, notes)
    style = watch.style(template.variables, day, {example.place for example in kept})
    return Demonstrations(
        tuple(kept),
        num_rows=sum(part.num_rows for part in parts),
        num_too_long=sum(part.num_too_long for part in parts),
        num_without_loss=sum(part.num_without_loss for part in parts),
        style=style,
        notes=notes.lines(),
    )


def read_turns(settings: DataSettings, base: Path) -> Iterator[Turn]:
    """The demonstrations as they are written, without a tokenizer. Raises UserError as `load_demonstrations` does."""
    for source in sources(settings):
        reader = _Rows(source, base, Notes())
        yield from map(reader.read, reader.rows)


def style_of(settings: DataSettings, base: Path, *, day: datetime.date | None = None) -> Style:
    """How the demonstrations ask, without tokenising them. Raises UserError as `load_demonstrations` does."""
    watch, places = StyleWatch(), set()
    for turn in read_turns(settings, base):
        watch.see(turn)
        places.add(turn.place)
    return watch.style(settings.chat_template_kwargs, day or datetime.date.today(), places)


class _Rows:
    """The rows of one source, and how they are read."""

    def __init__(self, source: Source, base: Path, notes: Notes) -> None:
        rows = read_path(
            source.path, base, name=source.name, split=source.split, field=f"{FIELD}.path", say=notes.say
        )  # fmt: skip
        first = next(rows, None)
        if first is None:
            raise UserError(f"`path` must hold demonstrations, but {source.path} is empty", field=f"{FIELD}.path")
        self.read: Read = turn_reader(source, first.values, source.path, notes)
        self.rows: Iterator[Row] = chain((first,), rows)


def _part(
    source: Source, settings: DataSettings, template: ChatTemplate, base: Path, notes: Notes, watch: StyleWatch
) -> Part:
    """The demonstrations of one source that have a loss and fit, and how many did not."""
    reader, part = _Rows(source, base, notes), Part(source.path, source.weight)
    while rows := list(islice(reader.rows, TOKENIZE_BATCH)):
        turns = [reader.read(row) for row in rows]
        for turn in turns:
            watch.see(turn)
        part.num_rows += len(rows)
        part.take(tokenize(template, turns, notes), settings.max_length)
    return part
