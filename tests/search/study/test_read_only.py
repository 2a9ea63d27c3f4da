"""Studies that may be looked at and not written: of another user, or on a read-only mount."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_study import confirmed
from rich.console import Console
from small_study import small_config

from qtarget.search.campaign.run import run_file
from qtarget.search.compare.tables import compare_and_show
from qtarget.search.report.write import write_report
from qtarget.search.store.storage import sqlite_url
from qtarget.search.store.study import searched
from qtarget.search.study.config_file import find_study, parse_study, write_folder
from qtarget.search.study.files import require_writable, write_atomic
from qtarget.search.terminal.status import show_status
from qtarget.search.tracking.connection import connect
from qtarget.spaces.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return confirmed(tmp_path_factory.mktemp("locked")).study_folder


@pytest.fixture
def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `access` says of a study on a read-only mount: rights alone do not bind the root user of these tests."""
    honest = os.access

    def access(path: Any, mode: int, **options: Any) -> bool:
        inside = Path(path).absolute().is_relative_to(folder)
        return honest(path, mode, **options) and not (inside and mode & os.W_OK)

    monkeypatch.setattr(os, "access", access)
    return folder


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def state(folder: Path) -> dict[Path, int]:
    """When each file changed; SQLite's own beside the database, which a real mount would not let it make, aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("study.db-"))
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    "look",
    [
        lambda folder, _: show_status(folder, quiet())["trials"],
        lambda folder, _: searched(find_study(folder)).fingerprints,
        lambda folder, out: compare_and_show([folder, folder], quiet(), out / "compare.md"),
        lambda folder, out: write_report(folder, quiet(), out=out / "r.html", compute=False),
    ],
    ids=["status", "searched", "compare", "report"],
)
def test_whatever_looks_works_and_changes_nothing(
    locked: Path, tmp_path: Path, look: Callable[[Path, Path], Any]
) -> None:
    before = state(locked)
    assert look(locked, tmp_path)
    assert state(locked) == before


@pytest.mark.slow
def test_a_report_that_has_no_place_says_where_to_put_it(locked: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"may not be written here .*`--out FILE.html`"):
        write_report(locked, quiet(), compute=False)
    with pytest.raises(UserError, match="is no folder"):
        write_report(locked, quiet(), out=locked / "study.json" / "r.html", compute=False)


@pytest.mark.slow
def test_a_tracking_store_that_may_not_be_written_is_refused_at_once(locked: Path, tmp_path: Path) -> None:
    store = locked / "store.db"
    store.touch()
    with pytest.raises(PermissionError, match="may not be written here"):
        connect(sqlite_url(store), locked)
    connect(sqlite_url(tmp_path / "mlflow.db"), locked)  # elsewhere, and without a lock in the folder
    assert (tmp_path / "mlflow.db").is_file()


@pytest.mark.slow
def test_a_run_says_so_before_anything_else(locked: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_config(folder=str(locked))))
    before = state(locked)
    with pytest.raises(UserError, match=r"`folder` must be a folder that can be written, but .*/small may not"):
        run_file(tmp_path / "study.yaml", quiet())
    assert state(locked) == before


def test_what_is_not_there_yet_is_asked_of_the_folder_above(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"`x` must be a folder .*/file is no folder; do this"):
        require_writable(tmp_path / "file" / "b", "x", "do this")


def test_a_fault_of_writing_names_the_file_itself(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as raised:
        write_atomic(tmp_path / ("n" * 255), "text")
    assert raised.value.filename == str(tmp_path / ("n" * 255))


@pytest.mark.parametrize(
    ("changes", "private"),
    [
        ({}, False),
        ({"storage": "postgresql://me@host/db"}, False),
        ({"storage": "postgresql://me:${PASSWORD}@host/db"}, False),
        ({"storage": "postgresql://me:se@cret@host/db"}, True),
        ({"tracking": {"uri": "http://me:secret@host"}}, True),
        ({"tracking": {"uri": "http://host/?token=secret"}}, True),
    ],
)
def test_others_may_look_at_a_study_unless_it_holds_a_password(
    tmp_path: Path, changes: dict[str, Any], private: bool
) -> None:
    config = parse_study(small_config(base=str(tmp_path), **changes))
    write_folder(config)
    mode = (config.study_folder / "study.json").stat().st_mode & 0o777
    assert mode == (0o600 if private else 0o644 & ~_umask())


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = "from qtarget.search.cli.main import main; main()"
    command = [sys.executable, "-c", code, "presets", "--figure", str(tmp_path / "file" / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/file/x.png must be open to this user, but: Not a directory" in done.stderr
