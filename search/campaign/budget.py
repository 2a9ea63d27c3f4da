"""One deadline and one number of hours for all studies of a campaign, and what of them their confirmations need.

Once every study has had its first turn and all confirmations would fit into what is left, their time is kept back from
the searches, so that a night that is too short for all trials still ends with verdicts. While they do not fit, they
take nothing from the searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..confirmation.candidates import candidates
from ..launchers.choose import engines
from ..loop.budget import AROUND_SECONDS, Cost, confirmation_cost, is_confirmed
from ..loop.confirm import confirmation_config, is_concluded
from ..store.history import TrialRecord
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE, read_folder
from .status import records_of


@dataclass(frozen=True)
class Limits:
    """How long one study may go on."""

    until: datetime | None
    hours: float | None
    """Device hours over all trials of that study, those before included."""
    over: bool = False
    """Whether nothing is left."""


class SharedBudget:
    """What is left for each study; everything is read from the studies."""

    def __init__(
        self, studies: Sequence[StudyConfig], until: datetime | None, hours: float | None, workers: int
    ) -> None:
        self._studies, self._until, self._hours, self._workers = studies, until, hours, workers
        self._fits = False
        self.all_begun = False
        """Whether every study has had its first turn, so that what all confirmations need can be known."""
        self.confirmed = False
        """Whether this call has confirmed: what is left of it is for searching."""

    @property
    def kept_back(self) -> bool:
        """Whether something is left, for the confirmations."""
        return self._fits and not self._is_past(self._until) and (self._hours is None or self._spent() < self._hours)

    def for_search(self, config: StudyConfig) -> Limits:
        """Limits of a slice of `config`: what is left, less what the confirmations need if they have ever fitted."""
        if not self.all_begun or self.confirmed:
            return self._limits(config, self._until, self._hours)
        wall, used = self._confirmations()
        until = None if self._until is None else self._until - wall
        limits = self._limits(config, until, None if self._hours is None else self._hours - used)
        self._fits = self._fits or (bool(wall) and not limits.over)
        return limits if self._fits else self._limits(config, self._until, self._hours)

    def for_confirmation(self, config: StudyConfig) -> Limits:
        """All that is left; `hours` are those of the confirmation, what it has used before included."""
        own = confirmation_hours(config)
        return Limits(self._until, None if self._hours is None else self._hours - self._spent() + own)

    def _limits(self, config: StudyConfig, until: datetime | None, hours: float | None) -> Limits:
        own = _search_hours(config)
        left = None if hours is None else hours - self._spent() + own
        return Limits(until, left, over=self._is_past(until) or (left is not None and own >= left))

    def _is_past(self, until: datetime | None) -> bool:
        return until is not None and datetime.now(until.tzinfo) >= until

    def _spent(self) -> float:
        """Device hours of all studies and their confirmations."""
        return sum(_search_hours(config) + confirmation_hours(config) for config in self._studies)

    def _confirmations(self) -> tuple[timedelta, float]:
        """(wall time, device hours) that confirming every study will take, as far as its trials tell."""
        wall, hours = 0.0, 0.0
        for config, cost in self._costs():
            wall += AROUND_SECONDS + cost.wall_seconds(engines(config.engine.ranks, self._workers))
            hours += config.engine.ranks * cost.engine_seconds / 3600
        return timedelta(seconds=wall), hours

    def _costs(self) -> list[tuple[StudyConfig, Cost]]:
        costs = ((config, due_confirmation(config)) for config in self._studies)
        return [(config, cost) for config, cost in costs if cost is not None]


def due_confirmation(config: StudyConfig, records: Sequence[TrialRecord] | None = None) -> Cost | None:
    """What confirming the best designs of a study will take; None when none follows, or it is done already.

    `records`: of its trials, where they are read already.
    """
    records = records_of(config) if records is None else records
    cost = confirmation_cost(config, records) if is_confirmed(config) else None
    if cost is None:
        return None
    chosen = candidates(config, records)
    if is_concluded(config, chosen):
        return None
    confirmation = confirmation_config(config, chosen)
    done = sum(record.finished for record in records_of(confirmation))
    return replace(cost, runs=max(1, cost.runs - done))


def _search_hours(config: StudyConfig) -> float:
    records = records_of(config)
    return config.engine.ranks * sum(record.seconds or 0.0 for record in records if record.same_as is None) / 3600


def confirmation_hours(config: StudyConfig) -> float:
    """Device hours of all confirmations of a study."""
    folders = (file.parent for file in config.study_folder.glob(f"confirmation-*/{FOLDER_FILE}"))
    return sum(_search_hours(read_folder(folder)) for folder in folders)
