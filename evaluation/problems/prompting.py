"""From a data set's row to the text of a user message and the gold answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from ...spaces.errors import UserError
from ..settings import TaskSettings
from .choice_golds import options, text_of
from .tables import Row, require_column, value_at

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.]*)\}")


def check_template(task: TaskSettings, row: Row, where: str) -> None:
    """Raise UserError when the template or the task names a column that `row` lacks, or shows the gold answer."""
    columns = asked_columns(task)
    named = {match[1] for match in _PLACEHOLDER.finditer(task.template) if match[1]}
    for column in (*columns, *sorted(named - {"question", "choices"})):
        require_column(row, column, where)
    if task.answer_column in named:
        raise UserError(
            f"`template` must not show the answer, but it names the answer column {{{task.answer_column}}}; "
            f"write {{{{{task.answer_column}}}}} if the braces are meant literally"
        )
    if "choices" in named and not options(task, row).texts:
        raise UserError("`template` names {choices}, but the task has neither `choices` nor `choices_column`")


def asked_columns(task: TaskSettings) -> list[str]:
    """The columns that hold question, answer, choices and error."""
    columns = [task.question_column, task.answer_column]
    if task.choices_column is not None:
        columns += [task.choices_column] if isinstance(task.choices_column, str) else task.choices_column
    if task.error_column is not None:
        columns.append(task.error_column)
    return columns


def message(task: TaskSettings, row: Row) -> str:
    """The user message: worked examples, then the question through the template."""
    listed = list_options(options(task, row).texts)
    shots = [fill(task, {"question": shot.question}, "") + "\n" + shot.answer for shot in task.shots]
    return "\n\n".join([*shots, fill(task, _named(task, row), listed)])


def question_of(task: TaskSettings, row: Row, place: str) -> str:
    """What makes the problem this one: its question with its options. Raises UserError when there is no question."""
    if "{question}" in task.template and not text_of(value_at(row, task.question_column)).strip():
        raise UserError(f"Every problem must have a question, but {place} has none in `{task.question_column}`")
    listed = list_options(options(task, row).texts) if task.choices_column is not None else ""
    return "\n".join(part for part in (text_of(value_at(row, task.question_column)), listed) if part)


def gold_of(task: TaskSettings, row: Row, letter: str | None, place: str) -> str:
    """The gold answer as text; for multiple choice, its `letter`. Raises UserError when there is none."""
    value = value_at(row, task.answer_column)
    texts = options(task, row).texts
    gold = (letter or "") if texts else text_of(value, ", ")
    if not text_of(value).strip():
        raise UserError(f"Every problem must have a gold answer, but {place} has none in `{task.answer_column}`")
    if not gold.strip():
        raise UserError(
            f"A gold answer must be the key, the letter, the text or the index of one of the {len(texts)} options, but "
            f"{place} has {text_of(value)[:80]!r}; mend the row, or name the right `answer_column`"
        )
    return gold


def error_of(task: TaskSettings, row: Row, place: str) -> float:
    """The absolute error that an answer to this row may have; the smallest where there are several."""
    value = text_of(value_at(row, task.error_column), ",") if task.error_column else ""
    try:
        errors = [float(part) for part in value.split(",") if part.strip()]
    except ValueError:
        errors = [-1.0]
    if any(not 0 <= error < math.inf for error in errors):
        raise UserError(
            f"An error in `{task.error_column}` must be a number of at least 0, or empty, but {place} has "
            f"{value[:80]!r}; mend the row, or name another `error_column`"
        )
    return min(errors, default=0.0)


def list_options(texts: Sequence[str]) -> str:
    """One option a line, "A. ..."."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))


def _named(task: TaskSettings, row: Row) -> dict[str, Any]:
    return {**row, "question": value_at(row, task.question_column)}


def fill(task: TaskSettings, named: Mapping[str, Any], listed: str) -> str:
    """The text of a user message: the template with a row's columns, and the options where there are any."""
    template = task.template
    if listed and "{choices}" not in template:
        template += "\n\n{choices}"

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        if match[1] == "choices":
            return listed
        try:
            return text_of(value_at(named, match[1]))
        except KeyError:  # a worked example has no other columns than its question
            return ""

    return _PLACEHOLDER.sub(replace, template).strip()
