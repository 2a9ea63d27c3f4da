"""The pairs of a campaign as a report sees them: how far each is, what it found, and what all of them compare to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...spaces.errors import UserError
from ..compare.pairs import pair_of
from ..compare.ranking import Comparison, compare
from ..compare.ranking import short_names as shortened
from ..loop.budget import confirmation_cost, is_confirmed
from ..report.data import StudyData, gather, gather_pair
from ..report.items import read_sheet
from ..study.campaign_config import Campaign, CampaignBudget, load_campaign, refuse_twice, shares

BETTER, WORSE = "better than SFT", "worse"
"""What a confirmation may say; everything else is not distinguishable."""


@dataclass(frozen=True)
class PairData:
    """One study of a campaign."""

    data: StudyData
    short: str
    """Its name without what all names begin with."""
    share: int
    """Slots that it is to have in the end."""

    @property
    def started(self) -> bool:
        return self.data.folder.is_dir()

    @property
    def href(self) -> str:
        """Of its own report, beside the campaign's."""
        return quote(self.file)

    @property
    def file(self) -> str:
        return f"{self.data.name}.html"

    @property
    def path(self) -> str:
        """Its folder, as a command takes it here."""
        here = os.path.relpath(self.data.folder)
        return str(self.data.folder) if here.startswith("..") else here

    @property
    def finished(self) -> int:
        return sum(record.finished for record in self.data.records)

    @property
    def slots(self) -> int:
        return max(self.share, len(self.data.records))

    @property
    def outcome(self) -> str | None:
        """What its confirmation says; None without one."""
        return None if self.data.verdict is None else str(self.data.verdict["outcome"])

    @property
    def state(self) -> str:
        """How far it is, in a word or two; whether it is damaged stands in `data`."""
        if not self.started:
            return "never started"
        if not self.data.records:
            return "no trial yet"
        done = self.finished >= self.slots
        if self.data.verdict is not None:
            return "confirmed" if done else "confirmed, search unfinished"
        if not done:
            return "searching" if any(record.state == "running" for record in self.data.records) else "half-way"
        return "searched" if self.data.confirmation is None else "confirmation unfinished"

    @property
    def search_seconds(self) -> float:
        """Engine time of its trials."""
        return _seconds(self.data)

    @cached_property
    def confirmation_seconds(self) -> float:
        """Engine time of all its confirmations, those of earlier winners included."""
        places = [place for place in self.data.folder.glob("confirmation-*") if place.is_dir()]
        return sum(_seconds(gather(place)) for place in places)

    @property
    def left_seconds(self) -> float | None:
        """Engine time of the slots that are left and of a confirmation, at what they took so far; None if unknown."""
        config, records = self.data.config, self.data.records
        trained = [each.seconds for each in records if each.finished and each.same_as is None and each.seconds]
        if config is None or not trained:
            return None
        search = (self.slots - self.finished) * sum(trained) / len(trained)
        cost = confirmation_cost(config, records) if is_confirmed(config) and self.data.verdict is None else None
        return search + (0.0 if cost is None else cost.engine_seconds)


def _seconds(data: StudyData) -> float:
    return sum(record.seconds or 0.0 for record in data.records if record.same_as is None)


def gather_campaign(paths: Sequence[Path]) -> tuple[Campaign, list[PairData]]:
    """The campaign of files and study folders, every pair as far as it can be read.

    Raises UserError for a file that breaks a rule, a folder that is not there, and two pairs of one name.
    """
    found = [_gather(path) for path in paths]
    campaign = found[0][0]
    if len(found) > 1:
        studies = tuple(study for each, _, _ in found for study in each.studies)
        campaign = Campaign(" + ".join(each.name for each, _, _ in found), studies, CampaignBudget())
    pairs = [pair for _, each, _ in found for pair in each]
    parts = {name: share for *_, each in found for name, share in each.items()}
    refuse_twice("study", (data.name for data in pairs))
    names = shortened([data.name for data in pairs])
    return campaign, [
        PairData(data, name, parts.get(data.name, len(data.records))) for data, name in zip(pairs, names, strict=True)
    ]


def _gather(path: Path) -> tuple[Campaign, list[StudyData], dict[str, int]]:
    """A campaign, its pairs, and their slots by name."""
    if path.is_dir():
        data = gather(path)
        configs = () if data.config is None else (data.config,)
        return Campaign(data.name, configs, CampaignBudget()), [data], {}
    campaign = load_campaign([path])
    return campaign, [gather_pair(config) for config in campaign.studies], shares(campaign)


def compared(pairs: Sequence[PairData]) -> tuple[Comparison | None, list[str]]:
    """The comparison of all pairs that can be compared, and sentences on those that cannot."""
    found, notes = [], []
    for pair in pairs:
        try:
            scores = pair_of(pair.data.name, pair.data.records, pair.data.verdict, lambda file: read_sheet(file).scores)
            found.append(scores)
        except UserError:
            notes.append(f"{pair.short} is not compared: it has no complete trial with answers yet.")
    if len(found) < 2:
        return None, [*notes, "Designs are compared once two pairs have complete trials."]
    try:
        return compare(found), notes
    except UserError as error:
        return None, [*notes, f"The pairs cannot be compared: {error}."]


def verdict(pairs: Sequence[PairData]) -> tuple[str, str]:
    """(tone, what was found in how many pairs, in one sentence)."""
    by = {outcome: [pair.short for pair in pairs if pair.outcome == outcome] for outcome in (BETTER, WORSE)}
    known = [pair for pair in pairs if pair.outcome is not None]
    if not known:
        return "open", _unconfirmed(pairs)
    same = [pair.short for pair in known if pair.outcome not in (BETTER, WORSE)]
    rest = [pair.short for pair in pairs if pair.outcome is None]
    parts = [f"A target better than plain SFT was found and confirmed in {_of(by[BETTER], pairs)}"]
    parts += [f"not distinguishable in {_names(same)}"] if same else []
    parts += [f"worse in {_names(by[WORSE])}"] if by[WORSE] else []
    parts += [f"not confirmed yet in {_names(rest)}"] if rest else []
    tone = "better" if len(by[BETTER]) == len(pairs) else "worse" if by[WORSE] else "same" if not rest else "open"
    return tone, f"{'; '.join(parts)}."


def _unconfirmed(pairs: Sequence[PairData]) -> str:
    led = [pair for pair in pairs if pair.data.winner is not None]
    if not led:
        return "No trial of any pair has finished yet."
    ahead = [pair.short for pair in led if pair.data.winner is not pair.data.sft and pair.data.sft is not None]
    return (
        f"No pair is confirmed yet. On the search problems another target leads plain SFT in {_of(ahead, pairs)}; the "
        "best of many is partly luck."
    )


def _of(names: Sequence[str], pairs: Sequence[PairData]) -> str:
    if len(names) == len(pairs):
        return "both pairs" if len(pairs) == 2 else f"all {len(pairs)} pairs"
    if not names:
        return f"none of {len(pairs)} pairs"
    return f"{len(names)} of {len(pairs)} pairs ({_names(names)})"


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def gaps(pairs: Sequence[PairData]) -> Iterator[str]:
    """What is missing in each pair that a campaign's reader should know; the rest stands in the pair's own report."""
    for pair in pairs:
        if not pair.started or pair.data.damaged:
            yield from (f"{pair.short}: {note}" for note in pair.data.missing)
        elif (open_ := pair.slots - pair.finished) > 0:
            yield f"{pair.short}: {open_} of {pair.slots} trials are still to be run."
        if pair.started and pair.data.verdict is None and not pair.data.damaged:
            yield f"{pair.short}: {_unconfirmed_why(pair)}"


def _unconfirmed_why(pair: PairData) -> str:
    config = pair.data.config
    if config is not None and not config.evaluation.report_problems:
        return "not to be confirmed: no problems were kept for it (`evaluation.report_problems`)."
    done = "begun, without a verdict yet" if pair.data.confirmation is not None else "not begun"
    return f"its winner is not confirmed ({done})."


def facts(pairs: Sequence[PairData]) -> dict[str, Any]:
    """Numbers over all pairs."""
    lefts = [pair.left_seconds for pair in pairs]
    known = [left for left in lefts if left is not None]
    unknown = len(lefts) - len(known)
    return {
        "finished": sum(pair.finished for pair in pairs),
        "slots": sum(pair.slots for pair in pairs),
        "confirmed": sum(pair.outcome is not None for pair in pairs),
        "search_seconds": sum(pair.search_seconds for pair in pairs),
        "confirmation_seconds": sum(pair.confirmation_seconds for pair in pairs),
        "left_seconds": sum(known) if known else None,
        "unknown": unknown,
    }
