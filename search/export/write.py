"""`qtarget export`: the confirmed design of a study as files that train anywhere, checked before they are written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ...spaces.errors import UserError
from ...spaces.target import TargetSpec
from ...trainers.paths import DATA_SUFFIXES, local_path, matching_files
from ..confirmation.candidates import SFT
from ..store.history import load_history, plain_sft
from ..store.study import searched
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE, find_study
from ..study.files import write_json
from ..terminal.progress import ask_and_show
from .choice import Winner, choose, spec_of
from .files import write_files
from .tracking import track_export

TOLERANCE = 1e-5
"""Largest relative difference between the exported loss and the trial's own, in value and in gradient."""
CHECK_FILE = "check.json"


def export_winner(study: Path, directory: Path, console: Console, *, unconfirmed: bool = False) -> dict[str, Any]:
    """Write the winner of a study into `directory`, check its loss on real data, log it, and sum it up.

    Raises UserError when there is no complete trial, no finished confirmation (unless `unconfirmed`), when something
    the winner needs is gone or no longer what the search used, or when the directory already holds something.
    """
    config = find_study(study)
    _refuse_existing(directory)
    if not (config.study_folder / FOLDER_FILE).is_file():
        raise UserError(
            f"an export needs a complete trial, but study {config.study!r} never ran; run it first: qtarget run"
        )
    search = searched(config)
    search.refuse_changes("an export")
    config = search.config
    records = load_history(config)
    winner = choose(config, records, unconfirmed=unconfirmed)
    _inputs_are_there(config, winner.target)
    partial = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_files(partial, config, winner, plain_sft(records), spec_of(config, winner))
        found = ask_and_show("export", {"folder": str(partial)}, console)
        _check(found)
        write_json(partial / CHECK_FILE, found)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    tracked = track_export(config, winner, directory)
    return {
        "directory": str(directory),
        "winner": str(directory / "winner.yaml"),
        "title": winner.title,
        "confirmed": winner.confirmed,
        "check": {"loss": found["loss_difference"], "gradient": found["gradient_difference"]},
        "tracking": tracked,
        "files": sorted(path.name for path in directory.iterdir()),
        "note": _note(winner),
    }


def _refuse_existing(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(
            f"`DIR` must be a new or empty folder, but {directory} holds something; name another one or remove it"
        )


def _inputs_are_there(config: StudyConfig, target: TargetSpec) -> None:
    """Raise UserError when a local model or the data of the winner is gone."""
    wanted: dict[str, Any] = {"model": config.model}
    if "teacher" in target.needs:
        wanted["teacher"] = config.teacher
    for name, settings in wanted.items():
        if settings is None:
            raise UserError("the winner needs a teacher, but the study names none; add `teacher: {path: ...}`")
        local_path(settings.path, config.base_folder, suffixes=(".gguf",), field=f"{name}.path")
    for path in config.data.paths:
        if matching_files(path, config.base_folder, field="data.path") is None:
            local_path(path, config.base_folder, suffixes=DATA_SUFFIXES, field="data.path")


def _check(found: Mapping[str, Any]) -> None:
    worst = max(found["loss_difference"], found["gradient_difference"])
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"the exported loss must equal the trial's to {TOLERANCE:g}, but differs by "
            f"{found['loss_difference']:.2g} in value and {found['gradient_difference']:.2g} in gradient; nothing was "
            "written. This is a fault of qtarget"
        )


def _note(winner: Winner) -> str:
    top = winner.best_search
    if winner.title == SFT and winner.comparison is not None:
        return "the confirmation found nothing better"
    if winner.record is not None and winner.record.number == top.number:
        return "the confirmed design is also the best of the search" if winner.confirmed else "not confirmed"
    return f"the confirmation prefers it to the best of the search, trial {top.number}"


def show_export(found: Mapping[str, Any], console: Console) -> None:
    """What was exported, how well its loss agrees, and how to go on."""
    check, tracked = found["check"], found["tracking"]
    console.print(f"{found['title']} ({found['note']})", soft_wrap=True, style="bold", markup=False)
    console.print(
        f"Its loss file agrees with the trial's own on real data: {check['loss']:.1e} in value, "
        f"{check['gradient']:.1e} in gradient (relative)."
    )
    where = f"run {tracked['run']}" if tracked["logged"] else f"not logged: {tracked['why']}"
    console.print(f"MLflow: {where}", soft_wrap=True, markup=False)
    console.print(f"Written to {found['directory']}: {', '.join(found['files'])}", soft_wrap=True, markup=False)
    console.print(f"Train it in full: qtarget train {found['winner']} --out model", soft_wrap=True, markup=False)
