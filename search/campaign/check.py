"""`qtarget check` on a campaign: every pair is tried, all faults are said at once, and how long all of it takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ...spaces.errors import UserError
from ..study.campaign_config import Campaign, is_single, load_campaign, shares
from ..study.config import StudyConfig
from ..terminal.check import check_study, spoken_time


def check_files(paths: Sequence[Path], console: Console) -> dict[str, Any]:
    """What `qtarget check` says of a study, or of every study of a campaign.

    Raises UserError for what the user can mend: of a campaign, the faults of all its studies.
    """
    if is_single(paths):
        return check_study(paths[0], console)
    campaign = load_campaign(paths)
    slots, facts, faults = shares(campaign), [], []
    for config in campaign.studies:
        console.rule(config.study, align="left")
        try:
            facts.append(_check(config.with_trials(slots[config.study]), console))
        except (UserError, RuntimeError) as error:
            faults.append(f"{config.study}: {error}")
            console.print(str(error), style="red", markup=False, soft_wrap=True)
    console.rule(f"Campaign {campaign.name}", align="left")
    if faults:
        some = f"{len(faults)} of {len(campaign.studies)} studies cannot work"
        raise UserError(
            "\n".join([f"all studies of a campaign must work, but {some}; mend them, or take them out", *faults])
        )
    console.print(_sum(campaign, facts), soft_wrap=True)
    return {"campaign": campaign.name, "studies": facts, "estimate_seconds": _seconds(facts)}


def _check(config: StudyConfig, console: Console) -> dict[str, Any]:
    """Check a study that has no file of its own, and leave its folder as it is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(json.dumps(config.model_dump(mode="json")), "utf-8")
        file.chmod(0o600)  # the storage's URL may hold a password
        return check_study(file, console)


def _seconds(facts: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(each["estimate_seconds"]) for each in facts)


def _sum(campaign: Campaign, facts: Sequence[Mapping[str, Any]]) -> str:
    trials, limit = sum(each["trials"] for each in facts), campaign.budget.hours
    confirmations = sum(float(each["confirmation_seconds"]) for each in facts)
    after = f", their confirmations about {spoken_time(confirmations)}" if confirmations else ""
    kept = "" if limit is None else f" `budget.hours` lets them use {limit:g} hours, in turns."
    return (
        f"All {len(facts)} studies work. Their {trials} trials take one engine {spoken_time(_seconds(facts))} at most, "
        f"if every step is a worst case{after}.{kept}"
    )
