"""What a study has cost, and what went wrong on the way: time, tokens, attempts, failures."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..store.history import TrialRecord
from .data import StudyData


def costs(data: StudyData) -> list[dict[str, Any]]:
    """A row for the search and one for the confirmation: trials by state, seconds of engines, tokens."""
    rows = [_row("search", data)]
    if data.confirmation is not None:
        rows.append(_row("confirmation", data.confirmation))
    return rows


def _row(name: str, data: StudyData) -> dict[str, Any]:
    own = [record for record in data.records if record.same_as is None]
    results = data.results.values()

    def total(key: str) -> float:
        return sum(float(result.get(key) or 0.0) for result in results)

    return {
        "name": name,
        "trials": len(data.records),
        "states": dict(Counter(record.state for record in data.records)),
        "credited": len(data.records) - len(own),
        "attempts": sum(max(0, record.attempts - 1) for record in own),
        "seconds": sum(record.seconds or 0.0 for record in own),
        "training_seconds": total("training_seconds"),
        "evaluation_seconds": total("evaluation_seconds"),
        "training_tokens": int(total("training_tokens")),
        "generated_tokens": int(total("generated_tokens")),
        "verdicts": dict(sum((Counter(record.verdicts) for record in own), Counter())),
    }


def failures(data: StudyData) -> list[dict[str, Any]]:
    """Every trial that failed, or needed more than one attempt: its end, and why each earlier attempt ended."""
    places = [("search", data)] + ([("confirmation", data.confirmation)] if data.confirmation is not None else [])
    return [
        {"place": place, "record": record, "chain": [_link(link) for link in record.chain]}
        for place, found in places
        for record in found.records
        if record.failure or _retried(record)
    ]


def _retried(record: TrialRecord) -> bool:
    return record.attempts > 1 and record.same_as is None


def _link(link: Any) -> str:
    return f"{link.get('why', '?')} ({link.get('at', 'time unknown')})" if isinstance(link, dict) else str(link)
