"""Rows of one file as it is now: JSON lines, JSON, CSV and Parquet, compressed or not.

Text is what the file says, character for character: a string is never read as a number, and a column that one row has
and another has not, or has with another type, is nobody's business until somebody asks for it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ...spaces.errors import UserError
from ..paths import refuse_unreadable

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What opening and unpacking raise."""
PACKED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz"}
"""How compressed files begin, and how their names end."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")
LISTED = "; a file that holds one JSON value, and not one a line, must end in .json"
SHOWN = 60
"""Characters of a faulty line that a message repeats."""


class Row(NamedTuple):
    """One row, and where it stands."""

    values: Mapping[str, Any]
    place: str
    """For people: `line 7 of train.jsonl`, `row 7 of train.parquet`."""


def suffix_of(path: Path) -> str:
    """The suffix that says how a file is read, in lower case; a compressed one's is that before `.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in OPENERS else path
    return inner.suffix.lower()


def is_readable(path: Path) -> bool:
    """Whether `read` knows files of this name."""
    return suffix_of(path) in READERS


def read(path: Path, title: str, field: str) -> Iterator[Row]:
    """The rows of a file in its order, one after the other; `title` names it in messages.

    Raises UserError with `field`, the place, the rule and the remedy for whatever cannot be read.
    """
    reader = READERS.get(suffix_of(path))
    if reader is None:
        raise UserError(
            f"`path` must end in one of {', '.join(READERS)}, or one of these with {', '.join(OPENERS)}, but got "
            f"{title}; convert the file",
            field=field,
        )
    try:
        refuse_unreadable(path, title, field)
        with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            yield from reader(cast(BinaryIO, file), title, field)
    except BROKEN as error:
        raise UserError(
            f"{title} must be a whole, readable file, but reading it failed with {type(error).__name__}: {error}; "
            "mend or replace the file",
            field=field,
        ) from error


def _json_lines(file: BinaryIO, title: str, field: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        place = f"line {number} of {title}"
        text = decoded(line, title, field, first_line=number).rstrip()
        if text:
            yield Row(_object(text, place, field), place)


def _object(text: str, place: str, field: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"every line must be a JSON object, but {place} is not ({_reason(error)}): {text[:SHOWN]!r}; mend the "
            f"line{LISTED if text.lstrip()[0] in '[{' else ''}",
            field=field,
        ) from None
    if isinstance(value, list):
        raise UserError(f"every line must be a JSON object, but {place} is a list; mend the line{LISTED}", field=field)
    return _mapping(value, place, field)


def _mapping(value: Any, place: str, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"every row must be a JSON object, but {place} is {type(value).__name__} {str(value)[:SHOWN]!r}; write "
            '{"column": value, ...}',
            field=field,
        )
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _json(file: BinaryIO, title: str, field: str) -> Iterator[Row]:
    """One list of objects, one object, or JSON lines under the name of JSON."""
    data = file.read()
    text = decoded(data, title, field)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{"):
            line = f"line {error.lineno}, " if isinstance(error, json.JSONDecodeError) else ""
            raise UserError(f"{title} must be JSON, but {line}{_reason(error)}; mend the file", field=field) from None
        yield from _json_lines(io.BytesIO(data), title, field)
        return
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        place = f"row {number} of {title}"
        yield Row(_mapping(row, place, field), place)


def _separated(delimiter: str) -> Callable[[BinaryIO, str, str], Iterator[Row]]:
    def read_table(file: BinaryIO, title: str, field: str) -> Iterator[Row]:
        text = decoded(file.read(), title, field)
        csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = _header(_record(lines, title, field), title, field)
        while True:
            place = f"line {lines.line_num + 1} of {title}"
            record = _record(lines, title, field)
            if record is None:
                return
            if record and len(record) != len(header):
                raise UserError(
                    f"every row must have the {len(header)} columns of the first line, but {place} has {len(record)}; "
                    "put text with commas or line feeds into double quotes",
                    field=field,
                )
            if record:
                yield Row(dict(zip(header, record, strict=True)), place)

    return read_table


def _record(lines: Any, title: str, field: str) -> list[str] | None:
    try:
        return next(lines, None)
    except csv.Error as error:
        raise UserError(
            f"{title} must be a table of text, but line {lines.line_num}: {error}; mend the quotes there", field=field
        ) from None


def _header(names: list[str] | None, title: str, field: str) -> list[str]:
    twice = sorted({name for name in names or () if (names or []).count(name) > 1})
    if twice:
        raise UserError(
            f"columns must have different names, but {title} has {', '.join(map(repr, twice))} twice; rename one",
            field=field,
        )
    return names or []


def _parquet(file: BinaryIO, title: str, field: str) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    seekable = file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
    number = 0
    try:
        for batch in parquet.ParquetFile(seekable).iter_batches(batch_size=1000):
            for values in batch.to_pylist():
                number += 1
                yield Row({key: without_nulls(value) for key, value in values.items()}, f"row {number} of {title}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{title} must be Parquet, but {error}; write it again", field=field) from error


def without_nulls(value: Any) -> Any:
    """A value without the keys that a table has given to its mappings because others have them."""
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def decoded(data: bytes, title: str, field: str, first_line: int = 1) -> str:
    """UTF-8 text, without a byte order mark at a file's start. Raises UserError with the line of a wrong byte."""
    packed = next((suffix for start, suffix in PACKED.items() if first_line == 1 and data.startswith(start)), None)
    if packed is not None:
        raise UserError(
            f"{title} must be text, but it is compressed; unpack it, or name it {title}{packed}", field=field
        )
    if first_line == 1 and data.startswith(UTF16):
        raise UserError(f"{title} must be UTF-8, but it is UTF-16; save it as UTF-8", field=field)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, byte = first_line + before.count(b"\n"), data[error.start]
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        raise UserError(
            f"{title} must be UTF-8, but line {line} has the byte 0x{byte:02x} at character {column} "
            f"({bytes([byte]).decode('latin-1')!r} in Latin-1); save it as UTF-8, e.g. iconv -f latin1 -t utf-8",
            field=field,
        ) from None
    return text.removeprefix("\ufeff") if first_line == 1 else text


OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
READERS: dict[str, Callable[[BinaryIO, str, str], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
