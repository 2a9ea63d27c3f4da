"""One call of `run`: what is said of a study that was stopped before it began."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from small_study import small_config, write_small_study

from qtarget.search.campaign.session import _records, run_file
from qtarget.search.study.config_file import parse_study
from qtarget.spaces.errors import UserError


@pytest.mark.slow
@pytest.mark.started_anew
def test_a_stop_before_the_first_trial_is_a_stop_and_the_same_command_starts(tmp_path: Path) -> None:
    path = write_small_study(tmp_path, tracking={"uri": "none"})
    console = Console(file=io.StringIO(), width=200)
    soon = datetime.now(UTC) + timedelta(seconds=0.2)  # an engine takes longer to import torch
    found = run_file(path, console, until=soon.isoformat())
    assert found["state"] == "stopped" and found["ended"] == "deadline" and found["winner"] is None
    assert "Stopped before the study began; nothing is lost" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_storage_that_cannot_be_read_is_not_taken_for_a_study_that_never_began(tmp_path: Path) -> None:
    config = parse_study(small_config(base=str(tmp_path)))
    assert _records(config, {}) == []
    with pytest.raises(UserError):
        _records(config, {"complete": 3})
