"""Engines and helpers start wherever the command is called from, and hear no voice but their own."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

import pytest

from qtarget.search.launchers.helper import ask
from qtarget.search.launchers.process import EngineProcess, parse_message
from qtarget.spaces.errors import UserError

SHADOWS = ("random", "signal", "datasets", "json", "queue", "code", "torch", "yaml")


@pytest.fixture
def shadows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder whose files are called like modules, and a library that prints when Python starts."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('not the module {name}')\n")
    loud = tmp_path / "loud"
    loud.mkdir()
    (loud / "sitecustomize.py").write_text("print('{\"not\": \"ours\"}\\n{broken\\nwelcome', end='', flush=True)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(loud))
    return tmp_path


@pytest.mark.slow
def test_modules_of_the_current_folder_and_lines_of_others_are_ignored(shadows: Path) -> None:
    engine = EngineProcess(shadows, 0)
    with pytest.raises(UserError, match="there is none at"):
        ask("check", {"study": str(shadows / "absent.yaml")}, lambda message: None)
    messages = []
    while not messages and select.select([engine], [], [], 60)[0]:
        messages += engine.receive()
    engine.close()
    assert [(each["type"], each["failure"]["kind"]) for each in messages] == [("failed", "user")]


@pytest.mark.slow
def test_the_command_line_is_not_led_astray(shadows: Path) -> None:
    command = [sys.executable, "-m", "qtarget", "status", "absent.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "there is none at" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("line", [b"", b"Loading ...", b"{'a': 1}", b'{"a": 1}', b"{", b"[1]", b'"type"'])
def test_only_messages_are_messages(line: bytes) -> None:
    assert parse_message(line) is None
    assert parse_message(b'{"type": "ready"}') == {"type": "ready"}
