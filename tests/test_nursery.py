"""What the nursery forks is a process like one that was started: its own, and in all else what the command says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nursery
import psutil
import pytest
from imports import ROOT

SAY = """
import json, os, sys, torch
json.dump({"argv": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "pid": os.getpid(), "parent": os.getppid(),
           "session": os.getsid(0), "variable": os.environ.get("VARIABLE"), "threads": torch.get_num_threads(),
           "read": sys.stdin.read()}, sys.stdout)
print("to the log", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
STARTED = (False, pytest.param(True, marks=(pytest.mark.started_anew, pytest.mark.slow)))


@pytest.mark.parametrize("anew", STARTED)
@pytest.mark.parametrize("kind", ["-c", "script"])
def test_a_process_is_what_its_command_says(anew: bool, kind: str, tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "say.py"
    script.parent.mkdir()
    script.write_text(SAY)
    command = [sys.executable, *(["-c", SAY] if kind == "-c" else [str(script)]), "3", "b c"]
    environment = {**os.environ, "VARIABLE": "a value", "PYTHONPATH": "somewhere"}
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=-1, text=True, cwd=tmp_path, env=environment, start_new_session=True
    ) as process:
        out, err = process.communicate("words")
    said: dict[str, Any] = json.loads(out)
    assert process.returncode == 3 and err == "to the log\n"
    assert (said["pid"], said["parent"], said["session"]) == (process.pid, os.getpid(), process.pid)
    assert said["argv"] == [command[1], "3", "b c"] if kind == "-c" else [str(script), "3", "b c"]
    assert said["path"] == ("" if kind == "-c" else str(script.parent))
    assert (said["folder"], said["variable"], said["read"]) == (str(tmp_path), "a value", "words")
    assert said["threads"] == 1


@pytest.mark.parametrize("anew", STARTED)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_a_signal_ends_it_and_it_is_found_by_command_and_environment(anew: bool, name: str) -> None:
    code = "import sys, time; print(1, flush=True); time.sleep(1000)  # in place of torch"
    command, environment = [sys.executable, "-c", code, "looked-for"], {**os.environ, "RANK": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        found = psutil.Process(process.pid)
        assert "looked-for" in " ".join(found.cmdline()) and found.environ()["RANK"] == "1"
        process.send_signal(getattr(signal, name))
    assert process.returncode == -getattr(signal, name)


@pytest.mark.slow
@pytest.mark.parametrize("anew", STARTED)
def test_what_a_command_starts_is_its_own_child_and_an_error_is_told(anew: bool) -> None:
    inner = "import os; print(os.getppid()); raise ValueError('told')  # in place of torch"
    outer = (
        "import os, subprocess, sys; "
        f"done = subprocess.run([sys.executable, '-c', {inner!r}], capture_output=True, text=True); "
        "print(os.getpid(), done.stdout.strip(), done.returncode, done.stderr.splitlines()[-1])"
    )
    done = subprocess.run([sys.executable, "-c", outer], capture_output=True, text=True, check=True)
    own, parent, status, *words = done.stdout.split()
    assert (parent, status, words) == (own, "1", ["ValueError:", "told"])


def test_what_imports_warn_of_fails_the_collection(tmp_path: Path, request, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warns_when_imported.py").write_text("import warnings\nwarnings.warn('is old', DeprecationWarning)\n")
    monkeypatch.syspath_prepend(tmp_path)
    warned = nursery.warned_of(["warns_when_imported", "is_not_installed"])
    assert [(str(each.message), each.category) for each in warned] == [("is old", DeprecationWarning)]
    monkeypatch.setattr(nursery, "WARNED", warned)
    with warnings.catch_warnings(), pytest.raises(DeprecationWarning, match="is old"):
        warnings.simplefilter("error")  # as in a run that does not only count them
        request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py")).pytest_collection(request.session)
