"""What is known of a problem besides question and answer: short values to slice a score by, e.g. its difficulty."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Fact = bool | int | float | str
LONGEST = 40
"""Characters; a longer text is no label."""
_NUMBERING = re.compile(r"(?:.*[_.\s])?(?:id|uid|uuid|idx|index|source_dataset)", re.I)


def facts_of(row: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Fact]:
    """The plain values of `row` and of mappings in it (`outer.name`), but for `without` and what numbers the rows."""
    return {
        name: value
        for name, value in _flat(row)
        if name not in without and not _NUMBERING.fullmatch(name) and _is_fact(value)
    }


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield str(name), value


def _is_fact(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST and "\n" not in value
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
