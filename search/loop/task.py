"""A claimed trial on its way through an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from ..store.queue import Claim
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
    def seconds(self) -> float:
        """Wall time of this trial, earlier attempts included."""
        return self.earlier + time.monotonic() - self.begun
