"""Several supervisors on a real PostgreSQL: the server's lock keeps claims apart, and dies with its holder."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import postgres, server_binaries
from scripted_study import TESTS
from small_study import small_config

from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import write_folder

pytestmark = pytest.mark.skipif(server_binaries() is None, reason="no PostgreSQL server is installed")
HOLD = (
    "import sys, time; from qtarget.search.store.storage import open_storage\n"
    "with open_storage(sys.argv[1], 'small').lock(): print('held', flush=True); time.sleep(600)"
)
MAIN = (
    "import sys; from pathlib import Path; from scripted_study import scripted\n"
    "from qtarget.search.study.config_file import read_folder; from qtarget.search.loop.supervisor import run_study\n"
    "run_study(read_folder(Path(sys.argv[1])), launch=scripted)"
)
JOIN = (
    "import sys; from pathlib import Path; from scripted_study import scripted\n"
    "from qtarget.search.loop.supervisor import join_study\n"
    "join_study(sys.argv[1], 'small', base=Path(sys.argv[2]), launch=scripted)"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as found:
        yield found


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts interpreters that do not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-c", code, *arguments]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_lock_excludes_others_and_dies_with_its_holder(url: str, python) -> None:
    holder = python(HOLD, url)
    assert holder.stdout.readline() == "held\n"
    other = python(HOLD, url)
    assert select.select([other.stdout], [], [], 5)[0] == [], "two processes hold the lock"
    holder.kill()
    assert other.stdout.readline() == "held\n"


def test_joiners_share_the_work_and_the_death_of_one_loses_nothing(url, python, scripted_study, tmp_path) -> None:
    search = {**small_config()["search"], "trials": 14, "pruner": "none"}
    config: StudyConfig = scripted_study({"seconds": 0.3}, storage=url, search=search)
    write_folder(config)
    main = python(MAIN, str(config.study_folder))
    wait_for_trials(config, 1)
    joiners = [python(JOIN, url, str(copy_of(config, tmp_path / name))) for name in ("a", "b")]
    wait_for_trials(config, 5)
    joiners[0].send_signal(signal.SIGKILL)
    assert main.wait(120) == 0 and joiners[1].wait(120) == 0
    records = load_history(config)
    assert [record.state for record in records] == ["complete"] * 14
    assert all(record.attempts == 1 or record.chain[0]["why"] == "supervisor lost" for record in records)


def copy_of(config: StudyConfig, base: Path) -> Path:
    """Another host's place for the study's files."""
    folder = base / "runs" / config.study
    folder.mkdir(parents=True)
    (folder / "script.json").write_bytes((config.study_folder / "script.json").read_bytes())
    return base


def wait_for_trials(config: StudyConfig, finished: int) -> None:
    """Until the study exists and so many of its trials are finished."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if sum(record.finished for record in load_history(config)) >= finished:
                return
        except ValueError:
            pass  # not created yet
        time.sleep(0.1)
    raise AssertionError("the study does not get on")
