"""Caches can be written, whoever runs: users of containers have no home, or `/` for one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qtarget.search.launchers.home import CACHES, homely

NOBODY = 54321
"""A user of whom no list knows."""


def as_nobody(action: Callable[[], Any]) -> Any:
    """What `action` returns in a process of that user."""
    if os.geteuid():
        pytest.skip("only root may become somebody else")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        found = json.loads(answer.read())
    os.waitpid(child, 0)
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that everybody may write, in folders that everybody may pass."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_an_ordinary_home_is_left_alone(tmp_path: Path) -> None:
    assert homely({"HOME": str(tmp_path), "USER": "me"}) == {}
    assert homely({"USER": "root"}).keys() <= {"HOME"}, "its home is in the list of users"


@pytest.mark.parametrize("home", [None, "", "/", "/nonexistent", "relative", "/dev/null"])
def test_without_a_home_there_is_one(temporary: Path, home: str | None) -> None:
    environment = {} if home is None else {"HOME": home}
    found = as_nobody(lambda: [homely(environment), homely(environment)])
    assert found[0] == found[1] == {"HOME": f"{temporary}/qtarget-home-{NOBODY}", "LOGNAME": f"uid-{NOBODY}"}
    assert (temporary / f"qtarget-home-{NOBODY}").stat().st_mode & 0o777 == 0o700


def test_models_in_a_cache_that_cannot_be_written_are_still_found(temporary: Path) -> None:
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    (home / ".cache").mkdir(mode=0o755)
    found = as_nobody(lambda: homely({"HOME": str(home), "USER": "me", CACHES[0]: "/own"}))
    assert set(found) == set(CACHES[1:]) and all(
        path.startswith(f"{temporary}/qtarget-home-") for path in found.values()
    )


def test_a_folder_that_somebody_else_has_put_there_is_not_used(temporary: Path) -> None:
    (temporary / f"qtarget-home-{NOBODY}").mkdir(mode=0o777)
    (temporary / f"qtarget-home-{NOBODY}").chmod(0o777)
    found = as_nobody(lambda: homely({"HOME": "/"}))
    assert found["HOME"].startswith(f"{temporary}/qtarget-home-") and not found["HOME"].endswith(f"-{NOBODY}")
