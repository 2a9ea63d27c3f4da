"""A campaign for reports: pairs that are confirmed, half-way, damaged and never started, with scripted engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_once
import yaml
from report_study import SHORT, confirm, search
from small_study import small_config

from qtarget.search.study.campaign_config import load_campaign
from qtarget.search.study.config import StudyConfig

PAIRS = ("done", "halfway", "torn", "absent")


def write_campaign(root: Path, pairs: tuple[str, ...] = PAIRS, **changes: Any) -> Path:
    """A campaign file whose pairs differ in their data only; it shares 16 trials."""
    evaluation = {**small_config()["evaluation"], "report_problems": 16}
    common = small_config(tracking={"uri": "none"}, evaluation=evaluation, study="words", confirmation=SHORT)
    matrix = {"data": {name: {"data": {"path": f"{name}.jsonl"}} for name in pairs}}
    path = root / "campaign.yaml"
    budget = {"trials": 4 * len(pairs), "slice": 2}
    path.write_text(yaml.safe_dump({**common, "matrix": matrix, "budget": budget, **changes}, sort_keys=False))
    return path


def studies(path: Path) -> dict[str, StudyConfig]:
    """The studies of a campaign by the last part of their names."""
    return {config.study.split(".")[-1]: config for config in load_campaign([path]).studies}


def mixed_campaign(root: Path) -> Path:
    """One pair confirmed, one with two of four trials, one whose storage is broken, one never started."""
    made_once.folder("mixed", mix, root)
    return root / "campaign.yaml"


def mix(root: Path) -> None:
    pairs = studies(write_campaign(root))
    search(pairs["done"])
    confirm(pairs["done"])
    search(pairs["halfway"], {"1": ["kill", "finish"]}, trials=2)
    search(pairs["torn"])
    for file in pairs["torn"].study_folder.glob("study.db*"):
        file.unlink()
    (pairs["torn"].study_folder / "study.db").write_bytes(b"this is not a database, but it is long enough" * 40)
