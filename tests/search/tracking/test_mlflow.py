"""Tracking against a real MLflow store on SQLite, and against a server that is not there."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from qtarget.search.study.events import RungScored, StepDone, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from qtarget.search.study.trial import trial_folder
from qtarget.search.tracking.mlflow import MlflowTracking, flatten
from qtarget.search.tracking.spool import open_spool, orphans

EVENTS = [
    StudyStarted("night", "folder", 2, 0, {"model": {"path": "m"}, "teacher": None}),
    TrialStarted(0, "sft", {"target": {"gamma": {"kind": "constant"}}}, "folder/0", 1, 4),
    *(StepDone(0, step, 4, {"loss": 1.0 / step, "learning_rate": 1e-3}) for step in (1, 2, 3, 4)),
    RungScored(0, 4, 0.5, 0.1, True),
    TrialEnded(0, "complete", {"score": 0.5, "standard_error": 0.1, "verdicts": {"correct": 4}}, None),
    TrialStarted(1, "dft", {"target": {"gamma": {"kind": "power"}}}, "folder/1", 1, 4),
    TrialEnded(1, "failed", None, "ValueError: boom"),
    StudyEnded("finished", {"winner": {"number": 0, "title": "sft", "score": 0.5}, "seconds": 3.0}),
]


def deliver(uri: str, folder: Path, events: list, drain_seconds: float = 60.0) -> MlflowTracking:
    tracking = MlflowTracking(uri, "pair", "night", folder, drain_seconds=drain_seconds)
    for event in events:
        tracking.on_event(event)
    tracking.close()
    return tracking


def runs(uri: str) -> dict[str, object]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("pair")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    trials = [run.data.tags["qtarget.trial"] for run in found]
    assert len(trials) == len(set(trials)), f"a run was made twice: {trials}"
    return dict(zip(trials, found, strict=True))


def loss_history(uri: str, run: object) -> list[tuple[int, float]]:
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")  # type: ignore[attr-defined]
    return [(metric.step, metric.value) for metric in history]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_study_is_a_parent_with_a_child_for_each_trial(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS)
    found = runs(uri)
    assert set(found) == {"study", "0", "1"}
    parent = found["study"].info.run_id
    assert {found[trial].data.tags["mlflow.parentRunId"] for trial in "01"} == {parent}
    assert {trial: run.info.status for trial, run in found.items()} == {
        "study": "FINISHED", "0": "FINISHED", "1": "FAILED",
    }  # fmt: skip
    assert found["0"].data.params["target.gamma.kind"] == "constant"
    assert found["0"].data.metrics["score"] == 0.5
    assert found["0"].data.metrics["final/verdicts.correct"] == 4
    assert found["1"].data.tags["qtarget.reason"] == "ValueError: boom"
    assert found["study"].data.metrics["study/winner.score"] == 0.5
    assert found["study"].data.tags["qtarget.winner.title"] == "sft"
    assert loss_history(uri, found["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_events_sent_again_after_a_crash_change_nothing(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS)
    before = {trial: (run.info.status, run.data.metrics, run.data.params) for trial, run in runs(uri).items()}
    (tmp_path / "tracking.offset").write_text("0")
    deliver(uri, tmp_path, [])
    after = runs(uri)
    assert {trial: (run.info.status, run.data.metrics, run.data.params) for trial, run in after.items()} == before
    assert loss_history(uri, after["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_an_outage_loses_nothing_and_does_not_raise(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    tracking = deliver(dead, tmp_path, EVENTS[:5], drain_seconds=20)
    assert tracking.failure is not None
    assert "sent at the next start" in caplog.text
    deliver(uri, tmp_path, EVENTS[5:])
    assert loss_history(uri, runs(uri)["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_spool_passes_over_a_torn_line(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(EVENTS[0])
    spool.close()
    with spool.path.open("ab") as file:
        file.write(b'{"kind": "StepDo')
    spool = open_spool(tmp_path)
    spool.append(EVENTS[-1])
    assert [entry.kind for entry in spool.undelivered()] == ["StudyStarted", "StudyEnded"]
    spool.mark_delivered(next(iter(spool.undelivered())).end)
    spool.close()
    spool = open_spool(tmp_path)
    assert [entry.kind for entry in spool.undelivered()] == ["StudyEnded"]
    spool.close()


def test_flatten_names_every_leaf() -> None:
    assert flatten(json.loads('{"a": {"b": 1, "c": null, "d": []}, "e": "x"}')) == {"a.b": 1, "e": "x"}


def test_the_journal_of_a_dead_process_is_delivered_and_a_living_ones_left_alone(tmp_path: Path, uri: str) -> None:
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_mlflow import EVENTS; from qtarget.search.tracking.spool import open_spool\n"
        "spool = open_spool(Path(sys.argv[1])); [spool.append(event) for event in EVENTS[:4]]\n"
        "print('there', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "there\n"
        assert orphans(tmp_path) == [], "it lives"
        ours = open_spool(tmp_path)
        assert ours.path.name != "tracking.jsonl"
        ours.close()
        other.kill()
    deliver(uri, tmp_path, EVENTS[4:])
    assert loss_history(uri, runs(uri)["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_steps_and_scores_passed_again_after_a_resume_are_logged_once(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS[:6])
    deliver(uri, tmp_path, [EVENTS[1], *EVENTS[3:]])
    found = runs(uri)
    assert loss_history(uri, found["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]
    assert len(MlflowClient(uri).get_metric_history(found["0"].info.run_id, "score")) == 1


def test_a_trial_that_was_told_but_not_announced_is_ended_at_the_next_start(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS[:6])
    assert runs(uri)["0"].info.status == "RUNNING"
    result = trial_folder(tmp_path, 0)
    result.write_result({"score": 0.5, "steps": 4})
    started = StudyStarted("night", "folder", 2, 1, {}, {0: "complete"})
    deliver(uri, tmp_path, [started])
    run = runs(uri)["0"]
    assert run.info.status == "FINISHED" and run.data.tags["qtarget.state"] == "complete"
    assert run.data.metrics["final/score"] == 0.5
    deliver(uri, tmp_path, [TrialEnded(0, "complete", result.result, None)])  # of a process that lived after all
    assert len(MlflowClient(uri).get_metric_history(run.info.run_id, "final/score")) == 1


def test_events_wait_in_memory_while_the_disk_is_full(tmp_path: Path, monkeypatch) -> None:
    spool, write = open_spool(tmp_path), os.write
    spool.append(EVENTS[0])
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))  # what a full disk does first
    spool.append(EVENTS[1])
    monkeypatch.undo()
    assert [entry.kind for entry in spool.undelivered()] == ["StudyStarted"]
    spool.append(EVENTS[2])
    assert [entry.kind for entry in spool.undelivered()] == ["StudyStarted", "TrialStarted", "StepDone"]
    spool.close()


def test_passwords_do_not_reach_the_store(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    reason = "crash: cannot reach postgresql://me:secret@host/db"
    deliver(uri, tmp_path, [*EVENTS[:2], TrialEnded(0, "failed", None, reason)])
    assert runs(uri)["0"].data.tags["qtarget.reason"] == "crash: cannot reach postgresql://me:***@host/db"
    dead = MlflowTracking("http://me:secret@127.0.0.1:9", "pair", "night", tmp_path / "dead", drain_seconds=20)
    dead.on_event(EVENTS[0])
    dead.close()
    assert dead.failure is not None and "secret" not in dead.failure and "secret" not in caplog.text
