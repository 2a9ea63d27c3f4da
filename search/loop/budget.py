"""How long a call may go on, besides the slots of the queue, and what it keeps back for the confirmation."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

from ...spaces.errors import UserError
from ..confirmation.candidates import candidates
from ..confirmation.power import planned
from ..confirmation.race import line_of
from ..store.history import TrialRecord
from ..study.config import StudyConfig
from ..study.trial import TrialFolder

log = logging.getLogger(__name__)
MARGIN = 1.25
"""Trials vary: a confirmation is granted so much more than its estimate."""
AROUND_SECONDS = 10.0
"""Stopping the search, opening the confirmation, concluding it and writing the report."""
Over = Literal["deadline", "hours", "reserved"]
"""reserved: what is left is the confirmation's."""


@dataclass(frozen=True)
class Budget:
    """A deadline (with a time zone), engine hours over all trials of the study, both, or neither."""

    until: datetime | None = None
    hours: float | None = None
    """Hours of one device; two engines side by side use two an hour, and so does one engine of two ranks."""
    reserve: int = 0
    """Leave enough of both for a confirmation on so many engines; 0: none follows."""


@dataclass(frozen=True)
class Cost:
    """What a confirmation will take."""

    runs: int
    """In trainings of the search's length: the mean over confirmations that find the lead they look for."""
    seconds_each: float

    @property
    def engine_seconds(self) -> float:
        return MARGIN * self.runs * self.seconds_each

    def wall_seconds(self, workers: int) -> float:
        """With so many engines side by side."""
        return MARGIN * math.ceil(self.runs / workers) * self.seconds_each

    def shown(self, workers: int) -> str:
        return f"about {self.wall_seconds(workers) / 60:.1f} minutes on {workers} engine(s)"


def is_confirmed(config: StudyConfig) -> bool:
    """Whether a search of this study is followed by a confirmation, if it finds something to confirm."""
    return bool(config.confirmation.automatic and config.evaluation.report_problems and not config.candidates)


def confirmation_cost(config: StudyConfig, records: Sequence[TrialRecord]) -> Cost | None:
    """What confirming the best of `records` would take, by the times measured; None while nothing can be confirmed."""
    try:
        chosen = candidates(config, records)
    except UserError:
        return None
    seconds = seconds_each(config, records)
    return None if seconds is None else Cost(math.ceil(planned(config, records, line_of(chosen)).cost), seconds)


def seconds_each(config: StudyConfig, records: Sequence[TrialRecord]) -> float | None:
    """Wall time of a training and its scoring on the report problems, as a slow trial took it; None while unknown."""
    seconds = sorted(_run_seconds(config, each) for each in records if each.state == "complete" and _trained(each))
    return seconds[(3 * len(seconds)) // 4] if seconds else None


def _trained(record: TrialRecord) -> bool:
    return record.same_as is None and record.seconds is not None


def _run_seconds(config: StudyConfig, record: TrialRecord) -> float:
    """Wall time of a trial, had it been scored on the report problems."""
    result = TrialFolder(record.folder).result or {}
    scored = int(result.get("num_problems", config.evaluation.problems))
    scoring = float(result.get("evaluation_seconds", record.seconds or 0.0))  # its files are elsewhere: all of it
    return (record.seconds or 0.0) + scoring * max(0.0, config.evaluation.report_problems / scored - 1)


class Spending:
    """What a study has used of its budget, and what its confirmation still wants of it."""

    def __init__(self, budget: Budget, config: StudyConfig) -> None:
        self._budget, self._config, self._devices = budget, config, config.engine.ranks
        self._seconds: dict[int, float] = {}
        self.start_seconds = 0.0
        """How long the first engine took to get ready: the confirmation starts one, too."""
        self.cost: Cost | None = None
        self._complete = 0
        self._fits = False

    def look(self, records: Iterable[TrialRecord]) -> None:
        """Take in how the trials stand, their engine time included."""
        known = list(records)
        self._seconds = {each.number: each.seconds or 0.0 for each in known}
        complete = sum(each.state == "complete" for each in known)
        if self._budget.reserve and complete != self._complete:  # it compares all designs: not every few seconds
            self.cost, self._complete = confirmation_cost(self._config, known), complete

    def over(self, running: Mapping[int, float]) -> Over | None:
        """What has run out, if anything; `running`: engine seconds by number of the trials that run here."""
        until, hours = self._budget.until, self._budget.hours
        if until is not None and datetime.now(until.tzinfo) >= until:
            return "deadline"
        left = math.inf if hours is None else 3600 * hours - self.engine_seconds(running)
        if left <= 0:
            return "hours"
        return "reserved" if self._is_confirmations_turn(left) else None

    def engine_seconds(self, running: Mapping[int, float]) -> float:
        """Seconds of all trials, times the devices of an engine."""
        return self._devices * sum({**self._seconds, **running}.values())

    def _is_confirmations_turn(self, engine_seconds_left: float) -> bool:
        """Once the confirmation has fitted into what is left, the search ends before it no longer does.

        One that never fits takes nothing from the search: it has to wait for the next call.
        """
        if self.cost is None:
            return False
        fits = self._devices * self.cost.engine_seconds <= engine_seconds_left and self._time_fits(self.cost)
        turn, self._fits = self._fits and not fits, self._fits or fits
        return turn

    def _time_fits(self, cost: Cost) -> bool:
        until = self._budget.until
        if until is None:
            return True
        needed = timedelta(seconds=AROUND_SECONDS + self.start_seconds + cost.wall_seconds(self._budget.reserve))
        return datetime.now(until.tzinfo) + needed <= until


def parse_until(text: str | None, now: datetime | None = None) -> datetime | None:
    """The moment that a person means by `--until`.

    `07:00` or `7:00`: the next moment a clock shows that here, also on nights when clocks change (a time that is left
    out then comes as much later as they jump); `07:00-05:00`: the next one in that zone; `+8h`, `+90m`, `+1h30m`: from
    now; an ISO date and time: local where it names no zone.

    Raises UserError for anything else, and for a moment that has passed.
    """
    if text is None:
        return None
    now = now or datetime.now().astimezone()
    try:
        moment = _after(text.strip(), now) or _next_clock(text.strip(), now) or _dated(text.strip())
    except (ValueError, OverflowError):
        raise UserError(
            "`--until` must be a time like 07:00, 07:00+01:00 or 2030-01-31T07:00, or a time from now like +8h or "
            f"+1h30m, but got {text!r}"
        ) from None
    if moment <= now:
        raise UserError(f"`--until` must lie ahead, but got {moment.isoformat()}, and it is {now.isoformat()}")
    return moment


def _after(text: str, now: datetime) -> datetime | None:
    """`+1h30m`; the zone of the answer is that of `now`, which makes no difference to when it is."""
    found = re.fullmatch(r"\+(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?", text)
    if found is None or not any(found.groups()):
        return None
    hours, minutes = (float(part or 0) for part in found.groups())
    return now + timedelta(hours=hours, minutes=minutes)


def _next_clock(text: str, now: datetime) -> datetime | None:
    """`07:00`, with or without a zone: the first such moment after `now`."""
    found = re.fullmatch(r"(\d{1,2}):(\d{2})(:\d{2})?(Z|[+-]\d{2}:?\d{2})?", text)
    if found is None:
        return None
    clock = time.fromisoformat(f"{found[1]:0>2}:{found[2]}{found[3] or ''}{found[4] or ''}")
    today = (now.astimezone(clock.tzinfo) if clock.tzinfo else now.astimezone()).date()
    days = (datetime.combine(today + timedelta(days=day), clock) for day in (0, 1, 2))
    moments = [moment for day in days for moment in (_local(day) if day.tzinfo is None else [day])]
    return min(moment for moment in moments if moment > now)


def _local(moment: datetime) -> list[datetime]:
    """When clocks here show a time: twice where they are put back over it, later where they jump over it."""
    both = [moment.replace(fold=fold).astimezone() for fold in (0, 1)]
    shown = [each for each in both if each.replace(tzinfo=None, fold=0) == moment]
    return shown or [max(both)]


def _dated(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.astimezone()
