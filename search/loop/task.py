"""A claimed trial on its way through an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from ..store.queue import Claim
from ..study.events import TrialStarted
from ..study.trial import TrialFolder, TrialSpec


@dataclass
class Task:
    """What a worker keeps about the trial that its engine runs."""

    claim: Claim
    spec: TrialSpec
    title: str
    folder: TrialFolder
    begun: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)
    stopping: Literal["interrupted", "timeout"] | None = None
    stop_asked: float = 0.0
    paused: bool = False
    """Whether it was asked to stop because the storage is away."""
    earlier: float = field(init=False)
    """Seconds of the attempts before this one."""

    def __post_init__(self) -> None:
        self.earlier = float(self.claim.attributes.get("seconds", 0.0))

    @property
    def micro_batch(self) -> int:
        return int(self.claim.attributes.get("micro_batch", self.spec.training.micro_batch))

    @property
    def asked(self) -> dict[str, Any]:
        """What an engine is asked to run."""
        spec, folder = self.spec.model_dump(mode="json"), str(self.folder.path)
        return {"number": self.claim.number, "folder": folder, "spec": spec, "micro_batch": self.micro_batch}

    @property
    def started(self) -> TrialStarted:
        """What listeners hear when an attempt begins."""
        asked, steps = self.asked, self.spec.training.steps
        return TrialStarted(self.claim.number, self.title, asked["spec"], asked["folder"], self.claim.attempt, steps)

    def crash(self) -> dict[str, Any]:
        """A crash counted with those before it that found the same checkpoint and items."""
        before, progress = self.claim.attributes.get("crash", {}), self.folder.progress()
        count = int(before["count"]) + 1 if before.get("progress") == progress else 1
        return {"count": count, "progress": progress}

    @property
    def seconds(self) -> float:
        """Wall time of this trial, earlier attempts included."""
        return self.earlier + time.monotonic() - self.begun
