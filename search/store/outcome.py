"""From a trial's result file, or its failure, to its verdict, and to the words that tell people why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from ...evaluation.statistics.racing import RaceDecision
from ..study.events import TrialState as EndState
from ..study.failures import Failure

Facts = Mapping[str, Any]
CREDITED = ("standard_error", "verdicts", "num_problems", "samples", "failure", "race", "retention")
"""What a trial that repeats a finished one takes over from it, besides score and rungs."""
WORST = -1e3
"""Further objectives of a trial that has no result."""


@dataclass(frozen=True)
class Verdict:
    """How a trial ends."""

    state: TrialState
    score: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """User attributes to keep with it."""
    violated: str | None = None
    """Name of the constraint that makes it infeasible: oom, diverged or timeout."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Other constraints; above 0 is violated."""
    further: tuple[float, ...] = ()
    """Values of further objectives, larger is better."""


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


def failed(failure: Failure, seconds: float, *, infeasible: bool) -> Outcome:
    """The end of a trial that is not tried again; the sampler learns from what is infeasible."""
    facts = {"seconds": seconds, "failure": {"kind": failure.kind, "message": failure.message}}
    reason = f"{failure.kind}: {failure.message.splitlines()[0]}"
    if infeasible:
        return Outcome(Verdict(TrialState.COMPLETE, 0.0, facts, violated=failure.kind), "infeasible", reason)
    return Outcome(Verdict(TrialState.FAIL, attributes=facts), "failed", reason)


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
