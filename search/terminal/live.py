"""`qtarget status --live`: what runs, how far it is, what is spent and left, the best so far, what went wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...spaces.errors import UserError
from ..confirmation.race import wanted
from ..loop.confirm import is_decided, stored_verdict
from ..store.history import TrialRecord, best, load_history, plain_sft
from ..store.study import searched
from ..study.config import StudyConfig
from ..study.config_file import find_study
from ..study.files import read_json
from .output import lost_output
from .progress import STATE_STYLE
from .rungs import budget_sentence, steps
from .tables import duration, headed, score_text, winner_sentence
from .verdict import confirmation_sentence

TAIL_BYTES = 8192
"""Read from the end of metrics.jsonl: a few dozen steps."""
SHOWN = 5
"""Best trials and faults in the live view; the plain status has all."""


@dataclass(frozen=True)
class Running:
    """A trial at work, as its folder tells."""

    number: int
    title: str
    attempt: int
    step: int
    steps: int
    loss: float | None
    """Of the last step, nats a token."""
    answered: int
    """Completions scored since the last step, or at the rung it is at."""
    left_seconds: float | None
    """Of the training, at the pace of the last steps."""


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment."""

    study: str
    records: Sequence[TrialRecord]
    running: Sequence[Running]
    spent_seconds: float
    """Engine time of all trials, running ones included."""
    left_seconds: float | None
    """Engine time of the slots that are left, at the mean of the finished ones; None while none is finished."""
    expected_end: datetime | None
    """When nothing is left, with as many engines as work now; None when none does."""
    asks_for_more: bool = False
    """Whether a confirmation is not settled by the trials it has."""
    steps: Mapping[str, Any] | None = None
    """Where trials pause: the budget in optimiser steps, and what of it is spent."""

    @property
    def left(self) -> int:
        """Trials that may go on: not those that are paused when no step is left for them."""
        done = self.steps is not None and not self.steps["more"]
        return sum(not record.finished and not (done and record.state == "paused") for record in self.records)

    @property
    def faults(self) -> list[TrialRecord]:
        """Trials that failed, are infeasible, or needed more than one attempt."""
        return [each for each in self.records if each.failure or (each.attempts > 1 and each.same_as is None)]

    def as_dict(self) -> dict[str, Any]:
        """What the table of trials does not have, as JSON data."""
        return {
            "running": [asdict(each) for each in self.running],
            "spent_seconds": self.spent_seconds,
            "left_seconds": self.left_seconds,
            "expected_end": None if self.expected_end is None else self.expected_end.isoformat(timespec="seconds"),
            "steps": self.steps,
        }


def snapshot(config: StudyConfig, records: Sequence[TrialRecord] | None = None) -> Snapshot:
    """The study as it stands now. Raises UserError when there is none."""
    records = load_history(config) if records is None else records
    running = [_running(config, record) for record in records if record.state == "running"]
    trained = [r.seconds for r in records if r.finished and r.same_as is None and r.seconds]
    spent = sum(record.seconds or 0.0 for record in records if record.same_as is None)
    left, end, budget = None, None, steps(config, records)
    if budget is not None and budget["spent"]:
        left = (budget["budget"] - budget["spent"]) * spent / budget["spent"]
    elif trained:
        mean = sum(trained) / len(trained)
        waiting = sum(record.state == "waiting" for record in records)
        left = mean * (waiting + sum(1 - each.step / max(1, each.steps) for each in running))
    if running and left is not None:
        end = (datetime.now(UTC) + timedelta(seconds=left / len(running))).astimezone()
    more = config.race is not None and bool(wanted(config, records, 1))
    return Snapshot(config.study, records, running, spent, left, end, more, budget)


def _running(config: StudyConfig, record: TrialRecord) -> Running:
    metrics = list(_tail(record.folder / "metrics.jsonl"))
    last = metrics[-1] if metrics else {}
    step, steps = int(last.get("step", 0)), int(record.training.get("steps", config.training.steps))
    paces = [float(each["seconds"]) for each in metrics if "seconds" in each]
    left = (steps - step) * sum(paces) / len(paces) if paces else None
    items = [record.folder / "items.jsonl", record.folder / "rungs" / f"step-{step:06d}.jsonl"]
    answered = next((_lines(file) for file in items if file.is_file()), 0)
    return Running(record.number, record.title, record.attempts, step, steps, last.get("loss"), answered, left)


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    """The last whole lines of a file of JSON objects; none when there is no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield dict(json.loads(line))
        except ValueError:  # the first one is cut
            continue


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def standing(found: Snapshot) -> list[RenderableType]:
    """What runs, what is spent and left, what went wrong: the part that live and plain status share."""
    parts: list[RenderableType] = [_running_table(found)] if found.running else []
    spent = f"Spent {duration(found.spent_seconds)} of engine time"
    left = "" if found.left_seconds is None or not found.left else f"; about {duration(found.left_seconds)} left"
    end = (
        ""
        if found.expected_end is None
        else f", expected end {found.expected_end:%H:%M} with {len(found.running)} at work"
    )
    parts.append(Text(f"{spent}{left}{end}."))
    if found.steps is not None:
        parts.append(Text(budget_sentence(found.steps)))
    return parts


def _running_table(found: Snapshot) -> Table:
    table = plain_table("Running", "#", "target", "attempt", "steps", "", "loss", "scored", "training left")
    for each in found.running:
        table.add_row(*running_cells(each))
    return table


def running_cells(each: Running) -> tuple[RenderableType, ...]:
    """A trial at work as a row of a table."""
    return (
        str(each.number),
        escape(each.title),
        str(each.attempt),
        f"{each.step}/{each.steps}",
        ProgressBar(total=each.steps, completed=each.step, width=20),
        "" if each.loss is None else f"{each.loss:.3f}",
        str(each.answered) if each.answered else "",
        duration(each.left_seconds),
    )


def plain_table(title: str, *columns: str) -> Table:
    """A table without lines."""
    return headed(title, *columns, box=None, pad_edge=False)


def _faults(records: Sequence[TrialRecord]) -> Table:
    table = plain_table("Failures and repeated attempts", "#", "state", "attempts", "how they ended")
    for record in records:
        table.add_row(*fault_cells(record))
    return table


def fault_cells(record: TrialRecord) -> tuple[str, ...]:
    """A trial that went wrong as a row of a table."""
    ends = [f"{link['why']} {link['at'][11:16]}" for link in record.chain]
    if record.failure:
        ends.append(f"{record.failure['kind']}: {record.failure['message'].splitlines()[0][:80]}")
    state = f"[{STATE_STYLE.get(record.state, 'dim')}]{record.state}[/]"
    return str(record.number), state, str(record.attempts), escape(", ".join(ends))


def _best(records: Sequence[TrialRecord]) -> Table:
    table = plain_table("Best so far", "#", "target", "score ± s.e.")
    complete = [record for record in records if record.state == "complete" and record.score is not None]
    for record in sorted(complete, key=lambda each: (-(each.score or 0.0), each.number))[:SHOWN]:
        table.add_row(str(record.number), escape(record.title), score_text(record))
    return table


def view(found: Snapshot) -> RenderableType:
    """One frame of the live status."""
    done, total = len(found.records) - found.left, len(found.records)
    states = [record.state for record in found.records]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(found.study, style="bold"), ProgressBar(total=max(1, total), completed=done, width=30),
                 Text(f"{done} of {total} trials finished ({counts})"))  # fmt: skip
    parts: list[RenderableType] = [head, *standing(found)]
    if best(found.records) is not None:
        parts += [_best(found.records), Text(winner_sentence(best(found.records), plain_sft(found.records)))]
    if found.faults:
        parts.append(_faults(found.faults[-SHOWN:]))
    return Group(*parts)


def follow(path: Path, console: Console, *, every: float = 2.0) -> dict[str, Any]:
    """Show a study, and its confirmation once that runs, until nothing is left of either, or nobody reads on.

    Ctrl-C ends it. Only reads. Returns the last snapshot as data. Raises UserError when there is no study.
    """
    config = searched(find_study(path)).config
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            shown = _current(config)
            verdict = stored_verdict(config)
            frame = view(shown)
            if verdict is not None:
                frame = Group(frame, Text(confirmation_sentence(verdict), style="bold"))
            live.update(frame, refresh=True)
            if not (shown.left or shown.asks_for_more) or lost_output():
                return {"study": config.study, "confirmation": verdict, **shown.as_dict()}
            time.sleep(every)


def _current(config: StudyConfig) -> Snapshot:
    """The study, or the confirmation that runs in its folder."""
    found = snapshot(config)
    if found.left:
        return found
    for place in sorted(config.study_folder.glob("confirmation-*/study.json"), reverse=True):
        if is_decided(read_json(place.with_name("confirmation.json"))):
            continue
        try:
            confirmation = snapshot(find_study(place.parent))
        except UserError:
            continue  # it has just been made
        if confirmation.left or confirmation.asks_for_more:
            return confirmation
    return found
