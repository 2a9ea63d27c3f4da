"""Trials that pause at rungs, through supervisors and scripted engines: what survives, and what is seen of them."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.terminal.live import snapshot, view
from qtarget.search.terminal.status import show_status

pytestmark = pytest.mark.slow

TRIALS, WHOLE = 6, 10
"""Of 8 steps: rungs at 2 and 4, each scored after one step more."""


def study(base: Path, name: str, script: dict[str, Any] | None = None, **settings: Any) -> StudyConfig:
    search = {
        **small_config()["search"],
        "pruner": "asha",
        "rungs": [0.25, 0.5],
        "rung_decay": 0.25,
        "sampler": "random",
        "repeats": 0,
        **settings,
    }
    config = parse_study(small_config(study=name, search=search | {"trials": TRIALS}) | {"base": str(base)})
    config.study_folder.mkdir(parents=True)
    (config.study_folder / "script.json").write_text(json.dumps(script or {}))
    return config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rungs")


@pytest.fixture(scope="module")
def calm(base: Path) -> tuple[StudyConfig, Recorder, Any]:
    """A study that nothing disturbs, what was heard of it, and its summary."""
    config, heard = study(base, "calm"), Recorder()
    return config, heard, run_study(config, [heard], launch=scripted)


def spent(config: StudyConfig) -> int:
    """Optimiser steps that the trials were granted, those for their scores included."""
    costs = {2: 3, 4: 6, 8: WHOLE}
    return sum(costs[record.granted] for record in load_history(config) if record.granted is not None)


def ends(config: StudyConfig) -> list[tuple[Any, ...]]:
    return [(record.state, record.granted, record.score, dict(record.rungs)) for record in load_history(config)]


def test_some_pause_some_go_on_and_the_budget_holds(calm: tuple[StudyConfig, Recorder, Any]) -> None:
    config, heard, summary = calm
    records = load_history(config)
    assert summary.state == "finished" and summary.counts["running"] == summary.counts["waiting"] == 0
    assert TRIALS * WHOLE - 6 < spent(config) <= TRIALS * WHOLE and len(records) > TRIALS
    assert [(each.state, set(each.rungs)) for each in records[:2]] == [("complete", {2, 4})] * 2
    assert {"paused", "complete"} == {record.state for record in records}
    paused = [event for event in heard.of("TrialEnded") if event.state == "paused"]
    assert paused and paused[0].reason == "waits at step 2 of 8"
    assert not list(config.study_folder.glob("trials/*/checkpoint")), "nothing goes on from them"


def test_status_says_steps_and_trials_and_how_rungs_rank(calm: tuple[StudyConfig, Recorder, Any]) -> None:
    config = calm[0]
    shown = Console(file=io.StringIO(), width=200)
    found = show_status(config.study_folder, shown)
    shown.print(view(snapshot(config)))
    steps, text = found["steps"], shown.file.getvalue()
    assert (steps["budget"], steps["spent"], steps["whole_trial"]) == (TRIALS * WHOLE, spent(config), WHOLE)
    assert text.count(f"{steps['spent']} of 60 steps, which 6 whole trials would take") == 2
    assert found["unfinished"] == 0 and not steps["more"] and "paused" in text
    assert [(rung["step"], rung["decay_steps"]) for rung in found["rungs"]] == [(2, 1), (4, 1)]
    assert all(rung["agreement"] in (None, pytest.approx(1.0)) for rung in found["rungs"])


class Stops(Recorder):
    """Ctrl-C at the first pause."""

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if type(event).__name__ == "TrialEnded" and event.state == "paused":
            os.kill(os.getpid(), signal.SIGINT)


def test_crashes_and_stops_change_nothing(base: Path, calm: tuple[StudyConfig, Recorder, Any]) -> None:
    config = study(base, "rough", {"1": ["kill", "finish"], "2": ["save", "finish"], "4": ["kill", "finish"]})
    assert run_study(config, [Stops()], launch=scripted).state == "stopped"
    assert any(record.state == "paused" for record in load_history(config))
    assert run_study(config, launch=scripted).state == "finished"
    assert ends(config) == ends(calm[0]) and load_history(config)[2].attempts == 2
    assert run_study(config, trials=7, launch=scripted).state == "finished"
    assert 7 * WHOLE - 6 < spent(config) <= 7 * WHOLE


def test_several_workers_spend_one_budget(base: Path) -> None:
    config = study(base, "many")
    run_study(config, workers=3, launch=scripted)
    assert TRIALS * WHOLE - 6 < spent(config) <= TRIALS * WHOLE
    assert not {record.state for record in load_history(config)} & {"running", "waiting"}


def test_in_slices_a_search_is_that_of_one_call(base: Path) -> None:
    """Also one whose first slice is no longer than a study that pauses nothing."""
    whole, sliced = (study(base, name, startup_trials=4) for name in ("whole", "sliced"))
    run_study(whole, launch=scripted)
    for trials in (2, 5, TRIALS):
        assert run_study(sliced, trials=trials, launch=scripted).state == "finished"
        assert (trials - 1) * WHOLE < spent(sliced) <= trials * WHOLE
    assert ends(sliced) == ends(whole)
