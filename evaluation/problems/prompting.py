"""From a data set's row to the text of a user message and the gold answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from ...spaces.errors import UserError
from ..settings import TaskSettings
from .tables import Row, require_column, value_at

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.]*)\}")


def check_template(task: TaskSettings, row: Row) -> None:
    """Raise UserError when the template or the task names a column that `row` lacks, or shows the gold answer."""
    columns = asked_columns(task)
    named = {match[1] for match in _PLACEHOLDER.finditer(task.template) if match[1]}
    for column in (*columns, *sorted(named - {"question", "choices"})):
        require_column(row, column, task.path)
    if task.answer_column in named:
        raise UserError(
            f"`template` must not show the answer, but it names the answer column {{{task.answer_column}}}; "
            f"write {{{{{task.answer_column}}}}} if the braces are meant literally"
        )
    if "choices" in named and not options(task, row):
        raise UserError("`template` names {choices}, but the task has neither `choices` nor `choices_column`")


def asked_columns(task: TaskSettings) -> list[str]:
    """The columns that hold question, answer and choices."""
    columns = [task.question_column, task.answer_column]
    if task.choices_column is not None:
        columns += [task.choices_column] if isinstance(task.choices_column, str) else task.choices_column
    return columns


def message(task: TaskSettings, row: Row) -> str:
    """The user message: worked examples, then the question through the template."""
    listed = list_options(options(task, row))
    shots = [_fill(task, {"question": shot.question}, "") + "\n" + shot.answer for shot in task.shots]
    return "\n\n".join([*shots, _fill(task, _named(task, row), listed)])


def question_of(task: TaskSettings, row: Row) -> str:
    """What makes the problem this one: its question with its options."""
    listed = list_options(options(task, row)) if task.choices_column is not None else ""
    return "\n".join(part for part in (_text(value_at(row, task.question_column)), listed) if part)


def gold_of(task: TaskSettings, row: Row, place: str) -> str:
    """The gold answer as text; for multiple choice, its letter. Raises UserError when there is none."""
    value = value_at(row, task.answer_column)
    texts = options(task, row)
    gold = _letter(value, texts, place) if texts else _text(value, ", ")
    if not gold.strip():
        raise UserError(f"Every problem must have a gold answer, but {place} has none in `{task.answer_column}`")
    return gold


def options(task: TaskSettings, row: Row) -> list[str]:
    """The texts of a multiple-choice question's options, in order; empty for other tasks."""
    if task.choices:
        return list(task.choices)
    if task.choices_column is None:
        return []
    if not isinstance(task.choices_column, str):
        return [_text(value_at(row, column)) for column in task.choices_column]
    value = value_at(row, task.choices_column)
    if isinstance(value, Mapping):
        value = value["text"] if "text" in value else [text for _, text in sorted(value.items()) if text is not None]
    return [_text(option) for option in value]


def list_options(texts: Sequence[str]) -> str:
    """One option a line, "A. ..."."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))


def _named(task: TaskSettings, row: Row) -> dict[str, Any]:
    return {**row, "question": value_at(row, task.question_column)}


def _fill(task: TaskSettings, named: Mapping[str, Any], listed: str) -> str:
    template = task.template
    if listed and "{choices}" not in template:
        template += "\n\n{choices}"

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        if match[1] == "choices":
            return listed
        try:
            return _text(value_at(named, match[1]))
        except KeyError:  # a worked example has no other columns than its question
            return ""

    return _PLACEHOLDER.sub(replace, template).strip()


def _text(value: Any, joint: str = "\n") -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return joint.join(_text(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _letter(value: Any, texts: Sequence[str], place: str) -> str:
    """The letter of the right option, given as letter, index from 0, or text."""
    index: int | None = None
    text = _text(value).strip()
    if text in texts:
        index = texts.index(text)
    elif len(text) == 1 and text.upper() in ascii_uppercase:
        index = ascii_uppercase.index(text.upper())
    elif text.isdigit():
        index = int(text)
    if index is None or index >= len(texts):
        raise UserError(
            f"A gold answer must be the letter, the index or the text of one of the {len(texts)} options, but {place} "
            f"has {text[:80]!r}"
        )
    return ascii_uppercase[index]
