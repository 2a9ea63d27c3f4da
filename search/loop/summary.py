"""How a call of `run_study` ended, and how each slot did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..store.history import TrialRecord
from ..study.events import TrialState
from .budget import Over

ABANDONED = "abandoned"
"""Why an attempt ended that could not save its last steps."""


@dataclass(frozen=True)
class Summary:
    """How a call of `run_study` ended."""

    state: Literal["finished", "stopped"]
    study: str
    folder: str
    counts: Mapping[str, int]
    """Slots: waiting, running, complete, pruned, fail."""
    winner: TrialRecord | None
    sft: TrialRecord | None
    """Plain SFT, to compare the winner with."""
    seconds: float
    """Wall time of this call."""
    ended: Over | Literal["finished", "signal"] = "finished"
    """Why it ended."""

    def as_dict(self) -> dict[str, Any]:
        winner, sft = (record.as_dict() if record else None for record in (self.winner, self.sft))
        return {**vars(self), "counts": dict(self.counts), "winner": winner, "sft": sft}


def stopped_sentence(records: Sequence[TrialRecord]) -> str:
    """What a stop has cost, and how to go on."""
    cut = [str(r.number) for r in records if r.state == "waiting" and r.chain and r.chain[-1]["why"] == ABANDONED]
    if not cut:
        return "Stopped; nothing is lost. The same command goes on from the checkpoints."
    return (
        f"Stopped before trial {', '.join(cut)} could save its last steps. The same command goes on from the "
        "checkpoints before them."
    )


def ended(records: Sequence[TrialRecord]) -> dict[int, TrialState]:
    """How the finished slots ended, by number."""
    states: tuple[TrialState, ...] = ("complete", "pruned", "infeasible", "failed")
    return {record.number: state for record in records for state in states if record.state == state}
