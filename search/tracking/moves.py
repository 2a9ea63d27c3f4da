"""A study's runs in MLflow when its folder is somewhere else by now: moved, they are the same runs; copied, others."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ..study.files import read_json, write_json
from ..study.folder_file import FOLDER_FILE

KEY_FILE = "tracking_key.json"
"""In the study's folder: what its runs are found by, and where the folder lay then."""
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Columns of MLflow's tables that hold places of artifacts."""


def kept_key(study: str, folder: Path, written: Path, *, own_store: bool) -> str:
    """What the runs of a study are found by: its name with the folder in which it was first tracked.

    `written`: where the folder lay when the study ran last. `own_store`: whether the store lies in the folder, so that
    a copy has a copy of the runs; in a store of many studies a copy has runs of its own.
    """
    here = folder.resolve()
    kept = _read(folder) or {"key": f"{study}@{written.resolve()}", "folder": str(written.resolve())}
    before = Path(kept["folder"])
    other, own = before / FOLDER_FILE, folder / FOLDER_FILE
    copied = other.is_file() and not (own.is_file() and other.samefile(own))  # the same one, where it is mounted twice
    key = f"{study}@{here}" if copied and not own_store else kept["key"]
    if kept != {"key": key, "folder": str(here)} or not (folder / KEY_FILE).is_file():
        with suppress(OSError):  # a read-only folder is looked at only
            write_json(folder / KEY_FILE, {"key": key, "folder": str(here)})
    return key


def follow_folder(uri: str, folder: Path) -> None:
    """Let the artifacts of the store in a study's folder be where the folder is: MLflow keeps absolute places."""
    file, here = folder.absolute() / "mlflow.db", (folder.resolve() / "mlartifacts").as_uri()
    if uri != f"sqlite:///{file}" or not file.is_file():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=10)) as database, database:
        found = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (before,) in found:
            if before and before.startswith("file:") and before.endswith("/mlartifacts") and before != here:
                _replace(database, before, here)


def _replace(database: sqlite3.Connection, before: str, here: str) -> None:
    for table, columns in _PLACES.items():
        known = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for column in known.intersection(columns):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (here, len(before) + 1, len(before), before),
            )


def _read(folder: Path) -> dict[str, str] | None:
    with suppress(ValueError, OSError):
        found = read_json(folder / KEY_FILE)
        if found is not None and {"key", "folder"} <= found.keys():
            return found
    return None
