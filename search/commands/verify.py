"""`qtarget verify`: stored answers judged again, offline, and what changed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...evaluation.settings import Kind

if TYPE_CHECKING:
    from rich.console import Console

    from ...evaluation.verification.rejudge import Judged

SHOWN = 20
"""Changed verdicts in the terminal; `--json` has all."""
_WIDTH = 48  # characters of a text in the table


def judge_again(file: Path, kind: Kind | None, base: Path, console: Console, *, quiet: bool) -> dict[str, Any]:
    """Judge the answers in a file or a trial's folder again; counts and changes, shown unless `quiet`.

    `base`: where a study's own verifier module lies. Raises UserError for a file that holds no answers.
    """
    from ...evaluation.verification.rejudge import rejudge

    sys.path.append(str(base.resolve()))
    with console.status(f"Judging the answers of {file} ..."):
        judged = rejudge(file, kind)
    facts = facts_of(judged)
    if not quiet:
        show(judged, facts, console)
    return facts


def facts_of(judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts and changes as plain data."""
    from ...evaluation.verification.rejudge import transitions
    from ...evaluation.verification.verify import fingerprint

    return {
        "judged_by": fingerprint(),
        "judged_before_by": sorted({each.stored.judged_by for each in judged} - {""}),
        "answers": len(judged),
        "correct": sum(each.now.verdict.value == "correct" for each in judged),
        "correct_before": sum(each.stored.before == "correct" for each in judged),
        "verdicts": [
            {"before": before, "now": now, "answers": count}
            for (before, now), count in sorted(transitions(judged).items())
        ],
        "changed": [each.as_dict() for each in judged if each.changed],
    }


def show(judged: Sequence[Judged], facts: dict[str, Any], console: Console) -> None:
    """Counts of all verdicts, and the first changes."""
    from rich.table import Table

    counts = Table("before", "now", "answers", title=f"{len(judged)} answers", title_justify="left")
    for row in facts["verdicts"]:
        counts.add_row(row["before"], row["now"], str(row["answers"]))
    console.print(counts)
    changed = [each for each in judged if each.changed]
    if changed:
        console.print(_changes(changed[:SHOWN]))
    more = f", {len(changed) - SHOWN} of them not shown (--json has all)" if len(changed) > SHOWN else ""
    console.print(
        f"{len(changed)} verdict(s) changed{more}; correct: {facts['correct_before']} before, {facts['correct']} now. "
        f"Judged by {facts['judged_by']}.",
        soft_wrap=True,
    )


def _changes(changed: Sequence[Judged]) -> Any:
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("line", overflow="fold"),
        "before",
        "now",
        "gold",
        "answer",
        "completion ends",
        title="Changed",
        title_justify="left",
    )
    for each in changed:
        texts = (each.stored.gold, each.now.answer or "", each.stored.completion[-_WIDTH:])
        cells = [Text(" ".join(text[:_WIDTH].split()).encode("utf-8", "replace").decode()) for text in texts]
        table.add_row(
            ":".join(filter(None, (each.folder, str(each.line)))), each.stored.before, each.now.verdict.value, *cells
        )
    return table
