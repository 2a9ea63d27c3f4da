"""Live status: what it says of running trials, time and faults is what storage and folders say."""

from __future__ import annotations

import io
import json
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from report_study import searched
from rich.console import Console
from scripted_study import scripted

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.store.queue import Queue
from qtarget.search.store.storage import open_storage
from qtarget.search.store.study import storage_url
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import write_folder
from qtarget.search.terminal.live import follow, snapshot, view


def text_of(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def halfway(tmp_path: Path) -> StudyConfig:
    """Four finished trials, one at step 6 of 8, one waiting."""
    config = searched(tmp_path, {"2": ["kill", "finish"], "3": ["diverged"]}).with_trials(6)
    write_folder(config)
    storage = open_storage(storage_url(config), config.study)
    queue = Queue(config, storage)
    queue.fill([], 6)
    claim = queue.claim()
    assert claim is not None and claim.number == 4
    storage.close()
    folder = config.study_folder / "trials" / "0004"
    folder.mkdir()
    lines = [{"step": step, "loss": 2.0 / step, "seconds": 0.5} for step in range(1, 7)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "lo')
    (folder / "items.jsonl").write_text("{}\n{}\n")
    return config


@pytest.mark.slow
def test_a_running_trial_is_seen_in_its_folder(halfway: StudyConfig) -> None:
    found = snapshot(halfway)
    (running,) = found.running
    assert (running.number, running.step, running.steps, running.attempt) == (4, 6, 8, 1)
    assert running.loss == pytest.approx(2 / 6) and running.answered == 2
    assert running.left_seconds == pytest.approx(2 * 0.5)


@pytest.mark.slow
def test_what_is_left_is_reckoned_from_what_was_measured(halfway: StudyConfig) -> None:
    begun = datetime.now().astimezone()
    found = snapshot(halfway)
    passed = datetime.now().astimezone() - begun
    finished = [record.seconds for record in load_history(halfway) if record.finished]
    assert found.left == 2 and found.spent_seconds == pytest.approx(sum(finished))
    assert found.left_seconds == pytest.approx(sum(finished) / len(finished) * (1 + 2 / 8))
    assert found.expected_end is not None
    assert timedelta() <= found.expected_end - begun - timedelta(seconds=found.left_seconds) <= passed


@pytest.mark.slow
def test_a_frame_has_progress_best_and_faults(halfway: StudyConfig) -> None:
    shown = text_of(view(snapshot(halfway)))
    assert "4 of 6 trials finished (3 complete, 1 infeasible, 1 running, 1 waiting)" in shown
    assert "6/8" in shown and "0.333" in shown and "expected end" in shown
    assert "0.750 ± 0.010" in shown and "Plain SFT" not in shown.split("Best so far")[0]
    faults = shown.split("Failures and repeated attempts")[1]
    assert "crash" in faults and "diverged: diverged in trial" in faults


@pytest.mark.slow
def test_a_finished_study_is_shown_once_and_left(tmp_path: Path) -> None:
    config = searched(tmp_path)
    console = Console(file=io.StringIO(), width=140)
    facts = follow(config.study_folder, console)
    assert facts["running"] == [] and facts["expected_end"] is None
    assert "4 of 4 trials finished" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_it_follows_a_study_that_runs_elsewhere_to_its_end(tmp_path: Path) -> None:
    config = searched(tmp_path, {"seconds": 0.2}).with_trials(7)
    write_folder(config)
    storage = open_storage(storage_url(config), config.study)
    Queue(config, storage).fill([], 7)
    storage.close()
    other = threading.Thread(target=run_study, args=(config,), kwargs={"launch": scripted})
    console = Console(file=io.StringIO(), width=140, force_terminal=True)
    other.start()
    facts = follow(config.study_folder, console, every=0.05)
    other.join()
    assert facts["spent_seconds"] > 0
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "7 of 7 trials finished" in shown and "1 running" in shown
