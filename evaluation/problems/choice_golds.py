"""Which option a data set's gold answer names: by key, letter, text or index, read one way in the whole column.

A single row can be read two ways: is the 1 of options 1, 2, 3, 4 an index or a text? The column decides: a reading has
to fit all rows. Where two readings of strings fit them all and disagree, the task has to say which is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from ...spaces.errors import UserError
from ..settings import GoldReading, TaskSettings
from .tables import Row, value_at


@dataclass(frozen=True)
class Options:
    """The options of one question, in order."""

    texts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """The data set's own names of the options, when it has them."""


def options(task: TaskSettings, row: Row) -> Options:
    """The options of a row's multiple-choice question; none for other tasks."""
    if task.choices:
        return Options(task.choices)
    if task.choices_column is None:
        return Options()
    if not isinstance(task.choices_column, str):
        return Options(tuple(text_of(value_at(row, column)) for column in task.choices_column))
    value = value_at(row, task.choices_column)
    if isinstance(value, Mapping) and "text" in value:
        keys = value.get("label") or ()
        return Options(tuple(map(text_of, value["text"])), tuple(map(text_of, keys)))
    if isinstance(value, Mapping):
        named = sorted(((str(key), text) for key, text in value.items() if text is not None), key=_natural)
        return Options(tuple(text_of(text) for _, text in named), tuple(key for key, _ in named))
    return Options(tuple(map(text_of, value)))


def gold_letters(task: TaskSettings, rows: Sequence[Row]) -> list[str | None]:
    """For every row the letter of the right option, None where no reading finds one.

    Raises UserError when two readings fit all rows and disagree.
    """
    given = [(value_at(row, task.answer_column), options(task, row)) for row in rows]
    read = {name: [reading(*each) for each in given] for name, reading in _READINGS.items()}
    if task.gold_is is not None:
        return _letters(read[task.gold_is])
    whole = {name: places for name, places in read.items() if None not in places}
    _check_agreement(task, whole, given)
    fallback = [
        next(filter(lambda place: place is not None, places), None) for places in zip(*read.values(), strict=True)
    ]
    return _letters(next(iter(whole.values()), fallback))


def _letters(places: Sequence[int | None]) -> list[str | None]:
    return [None if place is None else ascii_uppercase[place] for place in places]


def _check_agreement(
    task: TaskSettings, whole: Mapping[GoldReading, Sequence[int | None]], given: Sequence[tuple[Any, Options]]
) -> None:
    readings = [name for name in whole if name in ("letter", "text", "index")]
    if "key" in whole or len(readings) < 2 or not isinstance(given[0][0], str):
        return
    first, other = readings[:2]
    for number, (one, two) in enumerate(zip(whole[first], whole[other], strict=True), 1):
        if one != two:
            raise UserError(
                f"A gold answer must name one option, but {given[number - 1][0]!r} in row {number} of {task.path} is "
                f"one option read as {first} and another read as {other}; say which is meant with `gold_is: {first}` "
                f"or `gold_is: {other}`",
                field="evaluation.tasks",
            )


def _by_key(value: Any, found: Options) -> int | None:
    text = text_of(value).strip()
    return found.keys.index(text) if text in found.keys else None


def _by_letter(value: Any, found: Options) -> int | None:
    match = re.fullmatch(r"\s*\(?([A-Za-z])[).]?\s*", value) if isinstance(value, str) else None
    place = ascii_uppercase.index(match[1].upper()) if match else len(found.texts)
    return place if place < len(found.texts) else None


def _by_text(value: Any, found: Options) -> int | None:
    if not isinstance(value, str):
        return None
    texts = [text.strip() for text in found.texts]
    return texts.index(value.strip()) if texts.count(value.strip()) == 1 else None


def _by_index(value: Any, found: Options) -> int | None:
    text = text_of(value).strip()
    place = int(text) if text.isdecimal() and not isinstance(value, bool) else len(found.texts)
    return place if place < len(found.texts) else None


def _by_index_from_1(value: Any, found: Options) -> int | None:
    text = text_of(value).strip()
    place = int(text) - 1 if text.isdecimal() and not isinstance(value, bool) else -1
    return place if 0 <= place < len(found.texts) else None


_READINGS: dict[GoldReading, Callable[[Any, Options], int | None]] = {
    "key": _by_key,
    "letter": _by_letter,
    "text": _by_text,
    "index": _by_index,
    "index_from_1": _by_index_from_1,
}
"""In the order of preference."""


def text_of(value: Any, joint: str = "\n") -> str:
    """A value as text: lists joined, whole floats without a point, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return joint.join(text_of(item) for item in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _natural(named: tuple[str, Any]) -> tuple[int, str]:
    """2 before 10."""
    return len(named[0]) if named[0].isdecimal() else 0, named[0]
