"""Studies for these tests: real storage and processes, engines that need no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import made_once
import pytest
from scripted_study import Recorder
from small_study import small_config

from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.tracking import connection


@pytest.fixture(scope="session", autouse=True)
def made_tables(processes: None) -> Iterator[None]:
    """Tracking stores begin as copies of one; MLflow is imported by the first test that asks for one, as ever."""
    make = connection._make_tables
    made_once.read_once()

    def make_tables(uri: str) -> None:
        made_once.install()
        make(uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_make_tables", make_tables)
        yield


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def scripted_study(tmp_path: Path) -> Callable[..., StudyConfig]:
    """Builds a study whose engine follows `script`; `changes` replace top-level keys of the small study."""

    def build(script: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
        config = parse_study(small_config(**changes) | {"base": str(tmp_path)})
        config.study_folder.mkdir(parents=True, exist_ok=True)
        (config.study_folder / "script.json").write_text(json.dumps(script or {}))
        return config

    return build


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time of day that deadlines are held against: it stands still, and a test sets `shown`.

    So a deadline comes with an event, however busy the machine is.
    """

    class Clock(datetime):
        shown = datetime.now(UTC)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return cls.shown.astimezone(tz)

    for module in ("loop.budget", "campaign.budget", "campaign.run"):
        monkeypatch.setattr(f"qtarget.search.{module}.datetime", Clock)
    return Clock


@pytest.fixture
def trials_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float] | float], None]:
    """Sets the seconds that each attempt at a trial is said to take, for all trials or by number (others: none)."""

    def take(seconds: dict[int, float] | float) -> None:
        def spent(task: Any) -> float:
            return task.earlier + (seconds.get(task.claim.number, 0.0) if isinstance(seconds, dict) else seconds)

        monkeypatch.setattr("qtarget.search.loop.task.Task.seconds", property(spent))

    return take
