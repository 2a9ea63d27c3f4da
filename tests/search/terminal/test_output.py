"""Nothing that only shows can end a night: closed pipes and terminals, full disks, old locales, failing listeners."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from scripted_study import TESTS, Recorder, scripted
from small_study import small_config

from qtarget.search.loop.log import FILE, RunLog
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study
from qtarget.search.terminal.output import Output
from qtarget.search.terminal.progress import phases

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def write_study(folder: Path) -> Path:
    """A study of scripted engines, as a file."""
    (folder / "runs" / "small").mkdir(parents=True)
    (folder / "runs" / "small" / "script.json").write_text(json.dumps({"seconds": 0.1}))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(small_config(tracking={"uri": "none"})))
    return path


@pytest.mark.slow
def test_a_line_that_cannot_be_printed_does_not_end_the_night(tmp_path: Path) -> None:
    """As `qtarget run S | head -1`, or `| tee log` after Ctrl-C, in an old locale."""
    study = write_study(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), **ASCII}
    command = [sys.executable, str(TESTS / "shown_run.py"), str(study)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        assert "complete" in process.stdout.readline().decode("ascii")
        process.stdout.close()
        assert process.wait(250) == 0
    config = load_study(study)
    assert [record.state for record in load_history(config)] == ["complete"] * 4
    written = (config.study_folder / FILE).read_text("utf-8")
    *_, ended, used = written.splitlines()
    assert "trial 3 complete" in written and ended.endswith("study finished")
    found = re.search(r"used ([0-9.]+) s of CPU here and ([0-9.]+) s in engines, in ([0-9.]+) s$", used)
    assert found is not None
    here, engines, seconds = map(float, found.groups())
    assert here > 0 and engines >= 0 and here < 2 * seconds, used  # a nursery's processes are not ours to wait for


@contextmanager
def gone_reader() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write


@contextmanager
def closed_terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    os.close(ours)
    yield theirs


@contextmanager
def full_disk() -> Iterator[int]:
    yield os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("broken", [gone_reader, closed_terminal, full_disk])
def test_tables_bars_and_lines_on_what_cannot_be_written(broken: Callable[[], Any]) -> None:
    with broken() as descriptor, open(descriptor, "w", encoding="utf-8") as stream:
        output = Output(stream)
        console = Console(file=output, force_terminal=True)  # type: ignore[arg-type]
        with phases(console) as hear:
            for done in range(3):
                hear({"phase": "training", "done": done, "total": 2})
                console.print("γ ± 1" * 5000)
        assert output.failure is not None
        output.discard()


def test_characters_that_a_locale_lacks_are_escaped(tmp_path: Path) -> None:
    with (tmp_path / "printed").open("w", encoding="latin-1") as stream:
        Console(file=Output(stream)).print("γ = 1 ± 0")  # type: ignore[arg-type]
    assert (tmp_path / "printed").read_text("latin-1") == "\\u03b3 = 1 ± 0\n"


@pytest.mark.slow
def test_a_result_that_has_no_room_is_a_failure_and_a_reader_that_leaves_is_none() -> None:
    command = [sys.executable, "-m", "qtarget", "presets", "--json"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and b"could not be printed" in done.stderr and b"Traceback" not in done.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(250), process.stderr.read()) == (0, b"")


def test_a_listener_that_fails_is_named_once_and_the_others_hear_on(scripted_study, recorder, caplog) -> None:
    class Broken(Recorder):
        def on_event(self, event: object) -> None:
            raise SystemExit(1)  # what rich does at a broken pipe

        def close(self) -> None:
            raise OSError("gone")

    assert run_study(scripted_study(), [Broken(), recorder], launch=scripted).state == "finished"
    assert len(recorder.of("TrialEnded")) == 4 and recorder.closed
    assert caplog.text.count("Broken failed (SystemExit: 1); the study goes on") == 1


def test_the_log_hides_passwords_takes_warnings_and_does_without_room(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.emit(logging.LogRecord("qtarget", logging.WARNING, "", 0, "at %s", ("db://me:secret@host\x1b",), None))
    assert (tmp_path / FILE).read_text("utf-8").endswith("warning: at db://me:***@host\\x1b\n")
    log._path = Path("/dev/full")
    log.write("no room")
