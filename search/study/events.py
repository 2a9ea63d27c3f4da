"""What happens in a study, as data: the supervisor emits, progress bars and tracking listen.

Free of torch, optuna and mlflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

TrialState = Literal["complete", "pruned", "infeasible", "failed", "interrupted", "paused"]
"""interrupted, paused: it goes on later, after a stop or when it is promoted from its rung."""


@dataclass(frozen=True)
class StudyStarted:
    study: str
    folder: str
    trials: int
    """Slots of the queue: finished, running and waiting ones together."""
    finished: int
    """Slots that were already finished when this supervisor started."""
    config: Mapping[str, Any]
    ended: Mapping[int, TrialState] = field(default_factory=dict)
    """How each finished slot ended, those told by processes that died before they could say so included."""
    warnings: tuple[str, ...] = ()
    """What is worth a look in the study's inputs, as its engine found them; empty where none was started."""
    budget_steps: int | None = None
    """Where trials pause: the budget in optimiser steps, and what was granted of it when this supervisor started."""
    spent_steps: int = 0
    identity: str | None = None
    """Of the study in its storage: one that is made anew under the old name has another. None: from before there was
    one."""


@dataclass(frozen=True)
class TrialStarted:
    number: int
    title: str
    """Short human description of the target, e.g. `sft` or `power(0.5) + geometric(teacher 0.6)`."""
    spec: Mapping[str, Any]
    folder: str
    attempt: int
    """1 for the first try; a requeued or restarted trial counts on."""
    steps: int


@dataclass(frozen=True)
class StepDone:
    number: int
    step: int
    steps: int
    metrics: Mapping[str, float]
    """loss (nats a token), learning_rate, gradient_norm, label_prob, entropy (nats), tokens, seconds."""


@dataclass(frozen=True)
class ProblemsDone:
    number: int
    step: int
    done: int
    total: int


@dataclass(frozen=True)
class RungScored:
    number: int
    step: int
    score: float
    standard_error: float
    final: bool


@dataclass(frozen=True)
class TrialEnded:
    number: int
    state: TrialState
    result: Mapping[str, Any] | None
    """Contents of result.json when there is one."""
    reason: str | None


@dataclass(frozen=True)
class StudyEnded:
    state: Literal["finished", "stopped", "failed"]
    summary: Mapping[str, Any]
    ended: Mapping[int, TrialState] = field(default_factory=dict)
    """As in StudyStarted."""


Event = StudyStarted | TrialStarted | StepDone | ProblemsDone | RungScored | TrialEnded | StudyEnded


class Listener(Protocol):
    """Hears every event, in order, in the supervisor's thread; must return quickly and never raise."""

    def on_event(self, event: Event) -> None: ...

    def close(self) -> None: ...
