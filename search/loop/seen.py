"""Which problems trials have answered, so that a confirmation asks others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...spaces.errors import UserError
from ...trainers.paths import expanded
from ..study.config import StudyConfig
from ..study.config_file import find_study
from ..study.files import SEEN_FILE, read_json, write_json

ANSWERS = ("items.jsonl", "retention.jsonl", "rungs/*.jsonl")
"""Files of a trial that hold answers."""
_PROBLEM = re.compile(rb'"problem": ?"([^"\\\\]*)"')
"""In a line of such a file; a quote inside of an answer has a backslash before it."""


def note_seen(config: StudyConfig, confirmation: StudyConfig) -> None:
    """Write down, for the engines of a confirmation, what trials of its search have seen."""
    write_json(confirmation.study_folder / SEEN_FILE, {"problems": sorted(seen_problems(config))})


def seen_problems(config: StudyConfig) -> set[str]:
    """Ids of all problems that a trial of the study, or of a study it started from, has answered so far."""
    places = [config.study_folder]
    for name in config.warm_start.studies if config.warm_start is not None else ():
        with suppress(UserError):  # gone by now, as far as this host can see
            places.append(find_study(config.base_folder / expanded(name, "warm_start.studies")).study_folder)
    return {name for place in places for name in _asked(place, ANSWERS)}


def refuse_seen(folder: Path) -> None:
    """Raise UserError when the confirmation in `folder` has asked what a trial of its search had seen."""
    known = (read_json(folder / SEEN_FILE) or {}).get("problems", ())
    asked = _asked(folder, ANSWERS[:1])
    if both := asked & {*known}:
        raise UserError(
            f"a confirmation must ask problems that no trial has seen, but trials have seen {len(both)} of its "
            f"{len(asked)}; remove {folder} and confirm again"
        )


def _asked(study_folder: Path, patterns: Iterable[str]) -> set[str]:
    files = (file for pattern in patterns for file in (study_folder / "trials").glob(f"*/{pattern}"))
    return {found.decode() for file in files for found in _PROBLEM.findall(file.read_bytes())}
