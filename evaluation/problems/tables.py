"""Rows of a data set: JSONL and Parquet files directly, anything else through `datasets.load_dataset`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ..settings import TaskSettings

Row = Mapping[str, Any]


def read_rows(task: TaskSettings, base: Path) -> list[Row]:
    """The task's rows that pass `where`. Raises UserError for what cannot be read, and when no row is left."""
    rows = _read(task, base)
    for column in task.where:
        require_column(rows[0] if rows else {}, column, task.path)
    kept = [row for row in rows if all(str(row[column]) in values for column, values in task.where.items())]
    if not kept:
        raise UserError(f"{task.path} must have rows, but {len(rows)} were read and none is left after `where`")
    return kept


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
            f"Every named column must exist, but {where} has no column `{column}`; it has: {', '.join(map(str, row))}"
        ) from None


def _read(task: TaskSettings, base: Path) -> list[Row]:
    path = (base / Path(task.path).expanduser()).resolve()
    if path.is_file() and path.suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    if path.is_file() and path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    if not path.exists() and (path.suffix in (".jsonl", ".ndjson", ".parquet") or task.path.startswith((".", "/"))):
        raise UserError(f"`path` must be a file, but {path} does not exist; relative paths start at {base}")
    return _load_dataset(str(path) if path.exists() else task.path, task)


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:  # covers invalid UTF-8 and invalid JSON
            raise UserError(f"Every line must be a JSON object in UTF-8, but {path}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"Every line must be a JSON object, but {path}, line {number} is {type(row).__name__}")
        rows.append(row)
    return rows


def _load_dataset(path: str, task: TaskSettings) -> list[Row]:
    from datasets import load_dataset

    try:
        dataset: Iterable[Row] = load_dataset(path, task.name, split=task.split)
    except Exception as error:  # datasets raises many kinds; the user needs the id and the reason
        raise UserError(
            f"`path` must be a JSONL or Parquet file or a data set, but loading {path} (name {task.name}, split "
            f"{task.split}) failed: {error}"
        ) from error
    return list(dataset)
