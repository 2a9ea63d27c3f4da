"""Trials as a pandas frame where pandas is installed, else as plain rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..store.history import TrialRecord

SHOWN = ("number", "title", "state", "score", "standard_error", "baseline", "seconds", "attempts")


def rows(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """One row a trial: what `SHOWN` names, each searched setting and parameter, each verdict's count."""
    return [_row(record) for record in records]


def table(records: Sequence[TrialRecord]) -> Any:
    """A pandas frame of `rows`, by the trials' numbers; the rows themselves where there is no pandas."""
    found = rows(records)
    try:
        import pandas
    except ImportError:
        return found
    return pandas.DataFrame(found).set_index("number") if found else pandas.DataFrame(columns=list(SHOWN))


def _row(record: TrialRecord) -> dict[str, Any]:
    settings = {f"training.{name}": value for name, value in record.training.items()}
    answers = {f"answers.{name}": count for name, count in record.verdicts.items()}
    retention = {} if record.retention is None else {"forgotten": record.retention["forgotten"]}
    return {
        **{name: getattr(record, name) for name in SHOWN},
        **retention,
        **settings,
        **{name: value for name, value in record.parameters.items() if name not in settings},
        **answers,
    }
