"""`qtarget status --live` on a campaign: progress of every pair, what runs, what is spent and left, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...spaces.errors import UserError
from ..compare.ranking import short_names
from ..loop.confirm import VERDICT_FILE
from ..study.campaign_config import is_single, load_campaign, shares
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE, read_folder
from ..terminal.live import SHOWN, Snapshot, fault_cells, follow, plain_table, running_cells, snapshot
from ..terminal.output import lost_output
from ..terminal.tables import duration, score_text
from .budget import confirmation_hours, due_confirmation
from .status import Standing, records_of, standing_of

IDLE = 9.0
"""Times as long as a look takes it rests before the next one: the studies need the machine more."""
VERDICTS = {"better than SFT": "better", "worse": "worse"}
"""In a word; anything else is the same as far as can be told."""


@dataclass(frozen=True)
class PairNow:
    """One pair at one moment."""

    name: str
    """Without what all names begin with."""
    config: StudyConfig
    standing: Standing
    search: Snapshot
    confirmation: Snapshot | None
    """The one that runs, or was begun and has no verdict."""
    confirmed_seconds: float
    """Device time of all its confirmations."""

    @property
    def share(self) -> int:
        return max(self.standing.share, self.standing.slots)

    @property
    def running(self) -> int:
        """Trials at work."""
        return len(self.search.running) + (0 if self.confirmation is None else len(self.confirmation.running))

    @property
    def spent_seconds(self) -> float:
        """Time of all its trials and confirmations."""
        return self.search.spent_seconds + self.confirmed_seconds

    @property
    def state(self) -> str:
        if self.confirmation is not None:
            done = len(self.confirmation.records) - self.confirmation.left
            return f"confirming {done}/{len(self.confirmation.records)}"
        if self.standing.finished < self.share:
            return "searching" if self.search.running else "waiting" if self.search.records else "not begun"
        return "confirmed" if self.standing.verdict is not None else "searched"

    @property
    def open_trials(self) -> float:
        """Slots that are left, running ones in part."""
        done = sum(each.step / max(1, each.steps) for each in self.search.running)
        return max(0.0, self.share - self.standing.finished - done)

    @cached_property
    def confirmation_seconds(self) -> float:
        """Engine time that its confirmation still takes, as far as its trials tell."""
        if self.confirmation is not None and self.confirmation.left_seconds is not None:
            return self.confirmation.left_seconds
        cost = due_confirmation(self.config, self.search.records)
        return 0.0 if cost is None else cost.engine_seconds

    @property
    def over(self) -> bool:
        """Whether nothing is left of it."""
        searched = self.standing.finished >= self.share and self.confirmation is None
        return searched and self.confirmation_seconds == 0.0

    @property
    def trial_seconds(self) -> list[float]:
        """What its finished trials took."""
        records = self.search.records
        return [each.seconds for each in records if each.finished and each.same_as is None and each.seconds]


@dataclass(frozen=True)
class CampaignNow:
    """A campaign at one moment."""

    name: str
    pairs: Sequence[PairNow]

    @property
    def spent_seconds(self) -> float:
        return sum(pair.spent_seconds for pair in self.pairs)

    @property
    def search_left(self) -> float | None:
        """Engine seconds of the trials that are left; a pair without a finished one is taken for the mean of all."""
        known = [seconds for pair in self.pairs for seconds in pair.trial_seconds]
        if not known:
            return None
        means = [sum(own) / len(own) if (own := pair.trial_seconds) else sum(known) / len(known) for pair in self.pairs]
        return sum(mean * pair.open_trials for mean, pair in zip(means, self.pairs, strict=True))

    @property
    def confirmations_left(self) -> float:
        return sum(pair.confirmation_seconds for pair in self.pairs)

    @property
    def expected_end(self) -> datetime | None:
        """When nothing is left, with as many engines as work now; None when none does."""
        at_work, left = sum(pair.running for pair in self.pairs), self.search_left
        if left is None or not at_work:
            return None
        return (datetime.now(UTC) + timedelta(seconds=(left + self.confirmations_left) / at_work)).astimezone()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        end = self.expected_end
        return {
            "campaign": self.name,
            "studies": [{**pair.standing.as_dict(), **pair.search.as_dict(), "now": pair.state} for pair in self.pairs],
            "spent_seconds": self.spent_seconds,
            "left_seconds": None if self.search_left is None else self.search_left + self.confirmations_left,
            "expected_end": None if end is None else end.isoformat(timespec="seconds"),
        }


def campaign_now(paths: Sequence[Path]) -> CampaignNow:
    """The campaign as it stands. Raises UserError for a file that breaks a rule."""
    campaign = load_campaign(paths)
    goals, names = shares(campaign), short_names([config.study for config in campaign.studies])
    pairs = [_pair(config, name, goals[config.study]) for config, name in zip(campaign.studies, names, strict=True)]
    return CampaignNow(campaign.name, pairs)


def _pair(config: StudyConfig, name: str, share: int) -> PairNow:
    records = records_of(config)
    found, standing = snapshot(config, records), standing_of(config, share, records)
    return PairNow(name, config, standing, found, _open_confirmation(config), 3600 * confirmation_hours(config))


def _open_confirmation(config: StudyConfig) -> Snapshot | None:
    """The newest confirmation that has no verdict; None when there is none."""
    places = sorted(config.study_folder.glob(f"confirmation-*/{FOLDER_FILE}"), key=lambda file: file.stat().st_mtime)
    if not places or places[-1].with_name(VERDICT_FILE).is_file():
        return None
    try:
        return snapshot(read_folder(places[-1].parent))
    except (UserError, OSError):
        return None  # it has just been made


def view(now: CampaignNow) -> RenderableType:
    """One frame."""
    done, total = sum(pair.standing.finished for pair in now.pairs), sum(pair.share for pair in now.pairs)
    confirmed = sum(pair.standing.verdict is not None for pair in now.pairs)
    head = Table.grid(padding=(0, 2))
    said = f"{done} of {total} trials finished, {confirmed} of {len(now.pairs)} pairs confirmed"
    bar = ProgressBar(total=max(1, total), completed=done, width=30)
    head.add_row(Text(now.name, style="bold"), bar, Text(said))
    return Group(head, _pairs(now.pairs), *_running(now.pairs), Text(_time(now)), *_faults(now.pairs))


def _pairs(pairs: Sequence[PairNow]) -> Table:
    table = plain_table("Pairs", "pair", "trials", "now", "best so far", "score ± s.e.", "SFT", "spent", "verdict")
    for column in table.columns:
        column.no_wrap = column.header != "spent"  # what makes way on a narrow terminal
    for pair in pairs:
        found = pair.standing
        best, sft = found.best, found.sft
        table.add_row(
            escape(pair.name),
            f"{found.finished}/{pair.share}",
            pair.state,
            "" if best is None else f"#{best.number} {escape(best.baseline or 'found')}",
            "" if best is None else score_text(best),
            "" if sft is None or sft.score is None else f"{sft.score:.3f}",
            duration(pair.spent_seconds),
            "" if found.verdict is None else VERDICTS.get(str(found.verdict["outcome"]), "same"),
        )
    return table


def _running(pairs: Sequence[PairNow]) -> Iterator[Table]:
    rows = [
        (pair.name, place, each)
        for pair in pairs
        for place, found in (("", pair.search), ("confirmation ", pair.confirmation))
        for each in (found.running if found is not None else ())
    ]
    if rows:
        table = plain_table("Running", "pair", "#", "target", "attempt", "steps", "", "loss", "scored", "training left")
        for name, place, each in rows:
            number, *rest = running_cells(each)
            table.add_row(escape(name), f"{place}{number}", *rest)
        yield table


def _time(now: CampaignNow) -> str:
    left, confirmations = now.search_left, now.confirmations_left
    said = f"Spent {duration(now.spent_seconds)} of engine time"
    if left is not None and left + confirmations > 0:
        said += f"; about {duration(left + confirmations)} left"
        said += f" ({duration(confirmations)} of it for confirmations)" if confirmations else ""
    if (end := now.expected_end) is not None:
        return f"{said}, expected end {end:%H:%M} with {sum(pair.running for pair in now.pairs)} at work."
    return f"{said}." if all(pair.over for pair in now.pairs) else f"{said}. Nothing is at work now."


def _faults(pairs: Sequence[PairNow]) -> Iterator[Table]:
    rows = [
        (pair.name, record)
        for pair in pairs
        for found in (pair.search, pair.confirmation)
        for record in (found.faults if found is not None else ())
    ]
    if rows:
        table = plain_table("Failures and repeated attempts", "pair", "#", "state", "attempts", "how they ended")
        for name, record in rows[-SHOWN:]:
            table.add_row(escape(name), *fault_cells(record))
        yield table


def follow_all(paths: Sequence[Path], console: Console, *, every: float = 2.0) -> dict[str, Any]:
    """Show a study, or all pairs of a campaign, until nothing is left of them, or nobody reads on; Ctrl-C ends it.

    Only reads. Returns the last moment as data. Raises UserError when there is no study.
    """
    if is_single(paths):
        return follow(paths[0], console, every=every)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            begun = time.monotonic()
            now = campaign_now(paths)
            live.update(view(now), refresh=True)
            if all(pair.over for pair in now.pairs) or lost_output():
                return now.as_dict()
            time.sleep(max(every, IDLE * (time.monotonic() - begun)))
