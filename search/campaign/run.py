"""One call of `qtarget run` on a campaign: its studies in turn, a slice of trials each, then their confirmations.

Trials are shared in equal parts and spent in rounds: in round r every study is searched up to r slices, so that
whenever the deadline or the hours end, all pairs have been searched equally far, to within one slice. A slice is the
study with a smaller queue, so a campaign keeps nothing of its own: the same command reads where the studies are and
goes on there. Time for all confirmations is kept back once they would fit (`campaign_budget.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ...spaces.errors import UserError
from ..launchers.choose import engines
from ..launchers.process import Launch
from ..loop.budget import AROUND_SECONDS, parse_until
from ..loop.confirm import is_decided
from ..loop.supervisor import run_study
from ..study.campaign_config import Campaign, is_single, load_campaign, shares
from ..study.config import StudyConfig
from ..study.failures import StudyFailedError
from ..terminal.status import show_status as study_status
from .budget import SharedBudget, due_confirmation
from .session import confirm_study, listeners, run_file
from .status import Standing, campaign_table, standing_of

State = Literal["finished", "stopped", "failed"]


def run_files(paths: Sequence[Path], console: Console, **options: Any) -> dict[str, Any]:
    """Create or resume the study of one file, or a campaign: that of a file with `matrix`, or of several files."""
    return run_file(paths[0], console, **options) if is_single(paths) else run_campaign(paths, console, **options)


def show_status(paths: Sequence[Path], console: Console) -> dict[str, Any]:
    """Print how far a study is, or every study of a campaign; returns the same as data."""
    return study_status(paths[0], console) if is_single(paths) else campaign_status(paths, console)


def run_campaign(
    paths: Sequence[Path],
    console: Console,
    *,
    trials: int | None = None,
    workers: int = 1,
    until: str | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Create or resume the studies of one campaign file or of several files, and sum them up.

    `trials` and `hours` are for all studies together. Raises UserError for a file that breaks a rule; a study whose
    data or model cannot work is reported at the end, and the others go on.
    """
    campaign = load_campaign(paths)
    run = CampaignRun(campaign, console, workers, parse_until(until), hours or campaign.budget.hours)
    found = run.through(shares(campaign, trials))
    if run.has_time:
        _report(paths, console)
    return found


def _report(paths: Sequence[Path], console: Console) -> None:
    """Write the campaign's page, without loading the models once more."""
    from .report import write_reports  # matplotlib takes a second to import

    try:
        write_reports(paths, console, compute=False)
    except Exception as error:  # the studies are searched and their verdicts written, whatever becomes of a page
        console.print(f"The report could not be written: {error}", markup=False, soft_wrap=True)


def rounds(shares: Mapping[str, int], slice_: int) -> Iterator[dict[str, int]]:
    """How many slots each study has after each round."""
    for goal in range(slice_, max(shares.values()) + slice_, slice_):
        yield {study: min(share, goal) for study, share in shares.items()}


@dataclass
class CampaignRun:
    """One call."""

    campaign: Campaign
    console: Console
    workers: int = 1
    until: datetime | None = None
    hours: float | None = None
    launch: Launch | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Why a study cannot go on, by its name."""
    signalled: bool = False
    """Whether Ctrl-C or SIGTERM ended a search: nothing else begins."""

    def __post_init__(self) -> None:
        self._budget = SharedBudget(self.campaign.studies, self.until, self.hours, self.workers)

    @property
    def has_time(self) -> bool:
        """Whether the deadline leaves room for a page of a few seconds."""
        left = None if self.until is None else self.until - datetime.now(self.until.tzinfo)
        return not self.signalled and (left is None or left.total_seconds() > AROUND_SECONDS)

    def through(self, shares: Mapping[str, int]) -> dict[str, Any]:
        """All rounds and confirmations, as far as budget and deadline allow; the summary."""
        begun = time.monotonic()
        searched = self._rounds(shares)
        confirmed = (searched or self._budget.kept_back) and self._confirmations()
        if confirmed and not searched:  # they took less than was kept back for them
            self._budget.confirmed = True
            searched = self._rounds(shares)
            confirmed = searched and self._confirmations()
        state: State = "stopped" if not (searched and confirmed) else "failed" if self.failed else "finished"
        standings = [standing_of(config, shares[config.study]) for config in self.campaign.studies]
        left = [said for standing in standings if (said := self._left(standing)) is not None]
        self.console.print(campaign_table(self.campaign.name, standings, self.failed))
        for sentence in left:
            self.console.print(sentence, soft_wrap=True, markup=False, highlight=False)
        if state == "stopped":
            self.console.print("Stopped. The same command goes on with every study where it is.")
        return {
            "campaign": self.campaign.name,
            "state": state,
            "studies": [standing.as_dict() for standing in standings],
            "left": left,
            "failed": self.failed,
            "seconds": time.monotonic() - begun,
        }

    def _left(self, standing: Standing) -> str | None:
        """What of a study did not fit, in a sentence; None when nothing is left of it."""
        config = next(each for each in self.campaign.studies if each.study == standing.study)
        cost = due_confirmation(config)
        parts = [f"{standing.share - standing.finished} of {standing.share} trials"] * (
            standing.finished < standing.share
        )
        if cost is not None:
            parts.append(f"its confirmation ({cost.shown(engines(config.engine.ranks, self.workers))})")
        return f"{standing.study}: left are {' and '.join(parts)}." if parts else None

    def _rounds(self, shares: Mapping[str, int]) -> bool:
        """Search all studies to the end of their shares; False when budget or deadline ended it, or a signal."""
        return all(self._round(goals) for goals in rounds(shares, self.campaign.budget.slice))

    def _round(self, goals: Mapping[str, int]) -> bool:
        """Bring every study to its goal; False when the budget or the deadline ended, or a signal came."""
        done = all(self._slice(config, goals[config.study]) for config in self._working())
        self._budget.all_begun = self._budget.all_begun or done
        return done

    def _slice(self, config: StudyConfig, goal: int) -> bool:
        standing = standing_of(config)
        if standing.reached(goal):
            return True
        slots, limits = max(goal, standing.slots), self._budget.for_search(config)
        if limits.over:
            return False
        self.console.rule(f"{config.study}: trials {standing.finished + 1} to {slots}", align="left")
        return self._guarded(config, partial(self._search, config, slots, limits.until, limits.hours))

    def _search(self, config: StudyConfig, slots: int, until: datetime | None, hours: float | None) -> bool:
        summary = run_study(
            config,
            listeners(config, self.console),
            trials=slots,
            workers=self.workers,
            until=until,
            hours=hours,
            launch=self.launch,
        )
        self.signalled = summary.ended == "signal"
        return summary.state == "finished"

    def _confirmations(self) -> bool:
        """Confirm every study that is to be and is not; False when one was stopped."""
        return not self.signalled and all(
            self._guarded(config, partial(self._confirm, config)) for config in self._working()
        )

    def _confirm(self, config: StudyConfig) -> bool:
        if due_confirmation(config) is None:
            return True
        limits = self._budget.for_confirmation(config)
        self.console.rule(f"{config.study}: confirmation", align="left")
        workers = engines(config.engine.ranks, self.workers)
        verdict = confirm_study(config, self.console, workers=workers, deadline=limits.until, hours=limits.hours)
        return is_decided(verdict)

    def _guarded(self, config: StudyConfig, work: Callable[[], bool]) -> bool:
        """Whether to go on; a study that cannot work does not take the others with it."""
        try:
            return work()
        except (UserError, StudyFailedError) as error:
            self.failed[config.study] = str(error)
            self.console.print(f"{config.study} cannot go on: {error}", style="red", markup=False, soft_wrap=True)
            return True

    def _working(self) -> list[StudyConfig]:
        return [config for config in self.campaign.studies if config.study not in self.failed]


def campaign_status(paths: Sequence[Path], console: Console) -> dict[str, Any]:
    """Print how far every study of a campaign is; returns the same as data."""
    campaign = load_campaign(paths)
    goals = shares(campaign)
    standings: list[Standing] = [standing_of(config, goals[config.study]) for config in campaign.studies]
    console.print(campaign_table(campaign.name, standings))
    return {"campaign": campaign.name, "studies": [standing.as_dict() for standing in standings]}
