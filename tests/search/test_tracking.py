"""Tracking against a real MLflow store on SQLite, and against a server that is not there."""

import json
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient

from qtarget.search.events import RungScored, StepDone, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from qtarget.search.spool import open_spool
from qtarget.search.tracking import MlflowTracking, flatten

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
