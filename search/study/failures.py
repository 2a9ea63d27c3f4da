"""Kinds of failure, and what each means for a trial: try again, infeasible, failed, or the end of the study."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import field_validator

from ...spaces.settings import Settings
from .secrets import printable, redact

Kind = Literal["oom", "diverged", "timeout", "crash", "disk", "bug", "user"]

LOST_CONTACT = 75
"""Exit code of a rank that ends because another one is gone."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ask for an end at the next step: a scheduler or `kill`, a terminal that was closed, SLURM before its time limit."""


def heeded() -> list[signal.Signals]:
    """Those of STOP_SIGNALS that this process was not started to ignore, as `nohup` does with a closed terminal."""
    return [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


class Failure(Settings):
    """What went wrong in one attempt at a trial."""

    kind: Kind
    """oom: memory. diverged: non-finite loss or gradient. timeout: past the trial's time. crash: the engine died or
    hung. disk: no room. bug: a Python exception, which every trial may meet again. user: broken rules in configuration
    or data."""
    message: str
    traceback: str = ""
    field: str | None = None
    """Dotted path in the study's file, of a `user` failure."""

    @field_validator("message", "traceback")
    @classmethod
    def _fit_to_be_shown(cls, text: str) -> str:
        return printable(redact(text))


class StudyFailedError(RuntimeError):
    """A fault that every trial would meet again; the message carries the engine's traceback."""


@dataclass(frozen=True)
class Decision:
    """What to do about it."""

    then: Literal["retry", "infeasible", "failed", "wait", "stop"]
    """wait: the trial goes back to the queue until there is room on the disk."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Facts to keep with the trial."""


def decide(failure: Failure, crashes: int, micro_batch: int, effective_batch: int, retries: int) -> Decision:
    """What to do after `failure` of a trial; `crashes`: how often it crashed in a row, this time included.

    oom: the same trial at half the micro-batch, so that effective batch and token order stay; at one sequence it is
    infeasible, which the sampler learns from. crash: again, up to `retries` times in a row.
    """
    if failure.kind == "oom":
        if micro_batch == 1:
            return Decision("infeasible")
        return Decision("retry", {"micro_batch": smaller_micro_batch(micro_batch, effective_batch)})
    if failure.kind in ("diverged", "timeout"):
        return Decision("infeasible")
    if failure.kind == "disk":
        return Decision("wait")
    if failure.kind == "crash":
        return Decision("retry" if crashes <= retries else "failed")
    return Decision("stop")


def smaller_micro_batch(micro_batch: int, effective_batch: int) -> int:
    """The largest divisor of the effective batch that is at most half the micro-batch."""
    return next(size for size in range(micro_batch // 2, 0, -1) if effective_batch % size == 0)
