"""A disk that is really full and a server that is really away: the study pauses, says so, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store import disk, patience
from qtarget.search.store.history import load_history
from qtarget.search.store.patience import Patience, passing
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(disk, "FULL_SECONDS", 0.5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is free inside."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        (folder / "ballast").unlink()


def study_on(folder: Path, trials: int = 4) -> StudyConfig:
    search = {**small_config()["search"], "trials": trials, "pruner": "none"}
    limits = {**small_config()["limits"], "disk_gigabytes": 0.0}
    config = parse_study(small_config(search=search, limits=limits) | {"base": str(folder)})
    config.study_folder.mkdir(parents=True)
    return config


def test_a_full_disk_pauses_the_study_and_room_lets_it_go_on(small_disk: Path, caplog) -> None:
    config, fill = study_on(small_disk), None

    class Filler(Recorder):
        """Fills the disk when trial 1 starts, and frees it after two seconds."""

        def on_event(self, event: object) -> None:
            nonlocal fill
            super().on_event(event)
            if type(event).__name__ == "TrialStarted" and event.number == 1 and fill is None:  # type: ignore[attr-defined]
                fill = filled(small_disk)
                fill.__enter__()
                threading.Timer(2.0, fill.__exit__, (None, None, None)).start()

    begun, recorder = time.monotonic(), Filler()
    summary = run_study(config, [recorder], launch=scripted)
    assert summary.state == "finished" and summary.counts["complete"] == 4
    assert time.monotonic() - begun > 2.0
    assert "the disk is full" in caplog.text and "pauses" in caplog.text and "going on" in caplog.text
    assert [record.state for record in load_history(config)] == ["complete"] * 4


def test_ctrl_c_ends_the_wait_for_room_and_the_next_start_goes_on(small_disk: Path) -> None:
    config = study_on(small_disk)

    class Filler(Recorder):
        def on_event(self, event: object) -> None:
            if type(event).__name__ == "TrialStarted" and event.number == 1:  # type: ignore[attr-defined]
                fill.__enter__()
                threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    fill = filled(small_disk)
    with pytest.raises(KeyboardInterrupt, match="the disk is full"):
        run_study(config, [Filler()], launch=scripted)
    fill.__exit__(None, None, None)
    assert run_study(config, launch=scripted).counts["complete"] == 4


def test_what_does_not_pass_is_raised_at_once() -> None:
    tries = []

    def broken() -> None:
        tries.append(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Patience().wait_for(broken)
    assert tries == [1] and passing(ValueError("no space in this name")) is None


def test_a_second_try_whose_first_went_through_is_no_error() -> None:
    """The server commits, and goes away before it can say so."""
    answers = iter(
        [ConnectionLost, optuna.exceptions.UpdateFinishedTrialError, optuna.exceptions.UpdateFinishedTrialError]
    )

    def tell() -> None:
        raise next(answers)()

    assert Patience()._patient(tell)() is True
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        Patience()._patient(tell)()


class ConnectionLost(OSError):
    def __init__(self) -> None:
        super().__init__(28, "No space left on device")
