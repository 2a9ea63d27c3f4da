"""How far the studies of a campaign are: one row a study, read from the studies themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from ...spaces.errors import UserError
from ..loop.confirm import stored_verdict
from ..store.history import TrialRecord, best, load_history, plain_sft
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE
from ..terminal.rungs import steps
from ..terminal.tables import headed, score_text


@dataclass(frozen=True)
class Standing:
    """One study of a campaign."""

    study: str
    folder: str
    share: int
    """Slots that the campaign means it to have in the end."""
    slots: int
    """Slots of its budget that it has so far."""
    finished: int
    """Of these."""
    open_by_hand: int
    """Slots that were put in on top of the budget, and are not finished."""
    seconds: float
    """Engine time of its trials."""
    best: TrialRecord | None
    sft: TrialRecord | None
    verdict: Mapping[str, Any] | None
    """Of its newest confirmation."""

    def reached(self, goal: int) -> bool:
        """Whether there are `goal` finished slots and none is left open."""
        return self.slots >= goal and self.finished == self.slots and not self.open_by_hand

    def as_dict(self) -> dict[str, Any]:
        best, sft = (None if record is None else record.as_dict() for record in (self.best, self.sft))
        return {**vars(self), "best": best, "sft": sft}


def standing_of(config: StudyConfig, share: int = 0, records: Sequence[TrialRecord] | None = None) -> Standing:
    """How far a study is, by its `records` where they are read already; one that was never started has nothing."""
    records = records_of(config) if records is None else records
    slots, finished = _counted(config, records)
    return Standing(
        study=config.study,
        folder=str(config.study_folder),
        share=share,
        slots=slots,
        finished=finished,
        open_by_hand=sum(record.by_hand and not record.finished for record in records),
        seconds=sum(record.seconds or 0.0 for record in records if record.same_as is None),
        best=best(records),
        sft=plain_sft(records),
        verdict=stored_verdict(config),
    )


def _counted(config: StudyConfig, records: Sequence[TrialRecord]) -> tuple[int, int]:
    """(slots, finished ones); where trials pause, of whole trials' worth of steps."""
    found = steps(config, records)
    if found is None:
        own = [record for record in records if not record.by_hand]
        return len(own), sum(record.finished for record in own)
    slots = math.ceil(found["spent"] / found["whole_trial"])
    is_open = any(record.state in ("waiting", "running") and not record.by_hand for record in records)
    return slots, min(found["spent"] // found["whole_trial"], slots - 1) if is_open else slots


def records_of(config: StudyConfig) -> list[TrialRecord]:
    """Trials of a study; none when it was never started, or its inputs could not work."""
    if not (config.study_folder / FOLDER_FILE).is_file():
        return []
    try:
        return load_history(config)
    except UserError:
        return []


def campaign_table(name: str, standings: Sequence[Standing], failed: Mapping[str, str] | None = None) -> Table:
    """Trials, time, best design and verdict of every study."""
    columns = ("study", "trials>", "engine time>", "best so far", "score>", "plain SFT>", "confirmed")
    table = headed(f"Campaign {name}", *columns)
    for standing in standings:
        why = (failed or {}).get(standing.study)
        table.add_row(*_row(standing), f"[red]cannot go on: {escape(why)}[/]" if why else _confirmed(standing))
    return table


def _row(standing: Standing) -> tuple[str, ...]:
    return (
        escape(standing.study),
        f"{standing.finished}/{max(standing.share, standing.slots)}",
        f"{standing.seconds / 60:.1f} min",
        escape(standing.best.title) if standing.best else "",
        score_text(standing.best) if standing.best else "",
        score_text(standing.sft) if standing.sft else "",
    )


def _confirmed(standing: Standing) -> str:
    if standing.verdict is None:
        return ""
    winner = standing.verdict.get("winner")
    return escape(f"{winner}: {standing.verdict['outcome']}" if winner else str(standing.verdict["outcome"]))
