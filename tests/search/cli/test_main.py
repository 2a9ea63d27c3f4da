"""The command line in this process: every verb is there, and each end has its exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qtarget.search.cli.main import app, main
from qtarget.spaces import presets


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """The exit code of one command."""
    monkeypatch.setattr(sys, "argv", ["qtarget", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_help_names_every_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    verbs += [str(group.name) for group in app.registered_groups]
    assert ended(monkeypatch, "--help") == 0
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert {"quickstart", "run", "status", "report", "export", "train", "cache"} <= set(verbs) <= set(said)


def test_a_table_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, "presets", "--json") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == presets.names()


def test_a_fault_of_the_configuration_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("study: [1, 2")
    for arguments in (["status", study], ["status", tmp_path / "absent.yaml"], ["walk"], ["presets", "--fast"]):
        assert ended(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err
        assert said.strip() and "Traceback" not in said
