"""How long a call may go on, besides the slots of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Budget:
    """A deadline (with a time zone), engine hours over all trials of the study, both, or neither."""

    until: datetime | None = None
    hours: float | None = None

    def spent(self, seconds: float) -> bool:
        """Whether the deadline has passed, or `seconds` of engine time use up the hours."""
        past = self.until is not None and datetime.now(self.until.tzinfo) >= self.until
        return past or (self.hours is not None and seconds >= 3600 * self.hours)
