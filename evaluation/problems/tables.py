"""Rows of a task's data, read as demonstrations are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...trainers.data.files import read_path
from ...trainers.data.formats import Row as PlacedRow
from ..settings import TaskSettings

Row = Mapping[str, Any]
FIELD = "evaluation.tasks"


def read_rows(task: TaskSettings, base: Path, say: Callable[[str], None] = lambda note: None) -> list[PlacedRow]:
    """The task's rows that pass `where`, each with its place; `say` hears of files that are not read.

    Raises UserError for what cannot be read, and when no row is left.
    """
    rows = list(_read(task, base, say))
    for column in task.where:
        require_column(rows[0].values if rows else {}, column, name_of(task))
    kept = [row for row in rows if all(str(row.values.get(name)) in values for name, values in task.where.items())]
    if not kept:
        raise UserError(
            f"{name_of(task)} must have rows, but {len(rows)} were read and none is left after `where`", field=FIELD
        )
    return kept


def name_of(task: TaskSettings) -> str:
    """What messages call a task's data."""
    return task.path if isinstance(task.path, str) else ", ".join(task.path)


def value_at(row: Row, column: str) -> Any:
    """The value of a column, or of a field inside it (`context.contexts`). Raises KeyError."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(column)
        value = value[part]
    return value


def require_column(row: Row, column: str, where: str) -> None:
    """Raise UserError, naming the columns there are, when `row` lacks `column`."""
    try:
        value_at(row, column)
    except KeyError:
        raise UserError(
            f"Every named column must exist, but {where} has no column `{column}`; it has: {', '.join(map(str, row))}",
            field=FIELD,
        ) from None


def _read(task: TaskSettings, base: Path, say: Callable[[str], None]) -> Iterator[PlacedRow]:
    for path in (task.path,) if isinstance(task.path, str) else task.path:
        yield from read_path(path, base, name=task.name, split=task.split, field=FIELD, say=say, one_split=True)
