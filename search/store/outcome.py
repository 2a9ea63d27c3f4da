"""From a trial's result file to its verdict, and to the words that tell people why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from ...evaluation.statistics.racing import RaceDecision
from ..study.events import TrialState as EndState
from .queue import CREDITED, Verdict

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the queue is told, and what listeners hear."""

    verdict: Verdict
    state: EndState
    reason: str | None


def outcome(result: Facts, seconds: float) -> Outcome:
    """The end of a trial that wrote `result`; one that forgot more than its study allows is infeasible."""
    facts = {name: result[name] for name in CREDITED if result.get(name) is not None} | {"seconds": seconds}
    if result["state"] == "pruned":
        return Outcome(Verdict(TrialState.PRUNED, attributes=facts), "pruned", race_sentence(result.get("race")))
    retention = result.get("retention") or {}
    limit, objective = retention.get("limit"), retention.get("objective")
    verdict = Verdict(
        TrialState.COMPLETE,
        float(result["score"]),
        facts,
        constraints={} if limit is None else {"retention": float(retention["forgotten"]) - float(limit)},
        further=() if objective is None else (float(objective),),
    )
    if not retention.get("feasible", True):
        return Outcome(verdict, "infeasible", retention_sentence(retention))
    return Outcome(verdict, "complete", None)


def race_sentence(race: Facts | None) -> str | None:
    """How a race ended, and against whom."""
    if race is None:
        return None
    facts = {name: value for name, value in race.items() if name != "against"}
    return f"race against trial {race['against']}: {RaceDecision(**facts)}"


def retention_sentence(retention: Facts) -> str:
    """What a trial forgot, beside what it might."""
    said = f"forgot {retention['forgotten']:.3g} {retention['unit']} ({retention['name']})"
    return said if retention.get("limit") is None else f"{said}, allowed {retention['limit']:.3g}"
