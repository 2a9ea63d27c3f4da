"""Tracking against a real MLflow store on SQLite, and against a server that is not there."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
from mlflow.utils.validation import _validate_metric_name, _validate_param_name
from scripted_study import TESTS
from small_study import small_config

from qtarget.search.study.config_file import parse_study
from qtarget.search.study.events import RungScored, StepDone, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from qtarget.search.study.trial import trial_folder
from qtarget.search.tracking.address import run_key, tracking_uri
from qtarget.search.tracking.connection import connect, logging_level, past_proxies
from qtarget.search.tracking.mlflow import MlflowTracking
from qtarget.search.tracking.names import fitting_name, flatten
from qtarget.search.tracking.spool import open_spool, orphans

pytestmark = pytest.mark.slow

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


def told(uri: str) -> dict[str, tuple[str, str, dict[str, str]]]:
    """What the store says of each run; metrics as text, in which one NaN equals another."""
    return {
        trial: (run.info.status, str(run.data.metrics), run.data.params)  # type: ignore[attr-defined]
        for trial, run in runs(uri).items()
    }


def loss_history(uri: str, run: object) -> list[tuple[int, float]]:
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")  # type: ignore[attr-defined]
    return [(metric.step, metric.value) for metric in history]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, whose tables take seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    connect(f"sqlite:///{folder}/mlflow.db", folder)
    return folder / "mlflow.db"


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
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
    assert next(iter(found["0"].data.metrics)) == "final/score", "MLflow compares runs by their first metric"
    assert math.isnan(found["1"].data.metrics["final/score"])
    assert found["study"].data.metrics["study/winner.score"] == 0.5
    assert found["study"].data.tags["qtarget.winner.title"] == "sft"
    assert loss_history(uri, found["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_demonstrations_and_problems_are_datasets_of_their_runs(tmp_path: Path, uri: str) -> None:
    spec = {
        "data": {"path": ["parts/one.jsonl", {"path": "org/two", "weight": 1.0}]},
        "evaluation": {"tasks": [{"path": "gsm8k"}]},
        "fingerprints": {"data": "d" * 64, "evaluation": "e" * 64},
    }
    started = TrialStarted(0, "sft", spec, "folder/0", 1, 4)
    deliver(uri, tmp_path, [EVENTS[0], started, started])
    deliver(uri, tmp_path, [EVENTS[0], TrialStarted(0, "sft", spec, "folder/0", 2, 4)])
    for run in runs(uri).values():
        found = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}  # type: ignore[attr-defined]
        assert {context: (each.name, each.digest) for context, each in found.items()} == {
            "training": ("one.jsonl, two", "d" * 36),
            "evaluation": ("gsm8k", "e" * 36),
        }


def test_each_scored_trial_is_a_logged_model_with_its_score_on_the_problems(tmp_path: Path, uri: str) -> None:
    spec = {
        "target": {"gamma": {"kind": "power", "power": 0.5}},
        "training": {"learning_rate": 1e-3, "steps": 4},
        "evaluation": {"tasks": [{"path": "gsm8k"}]},
        "fingerprints": {"evaluation": "e" * 64},
    }
    started = TrialStarted(0, "p^0.5: teacher^(1/2)", spec, "folder/0", 1, 4)
    events = [EVENTS[0], started, *EVENTS[2:]]
    deliver(uri, tmp_path, events)
    (tmp_path / "tracking.offset").write_text("0")  # told again: still one model
    deliver(uri, tmp_path, [])
    found = runs(uri)
    client = MlflowClient(uri)
    [model] = client.search_logged_models([found["0"].info.experiment_id])  # trial 1 has failed
    assert model.name == "000 p^0\u20245  teacher^(1\u20442)" and model.status == "READY"
    assert model.source_run_id == found["0"].info.run_id and model.tags["qtarget.trial"] == "0"
    assert model.params == {
        "target.gamma.kind": "power", "target.gamma.power": "0.5", "training.learning_rate": "0.001",
    }  # fmt: skip
    scores = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert scores == {"final/score": (0.5, "gsm8k"), "final/standard_error": (0.1, "gsm8k")}
    assert [each.model_id for each in found["0"].outputs.model_outputs] == [model.model_id]
    history = client.get_metric_history(found["0"].info.run_id, "final/score")
    assert [(each.step, str(each.value)) for each in history] == [(-1, "nan"), (0, "0.5")]


def test_a_server_that_knows_no_models_is_told_of_none_and_takes_the_rest(
    tmp_path: Path, uri: str, monkeypatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "search_logged_models", unknown)
    assert deliver(uri, tmp_path, EVENTS).failure is None
    assert runs(uri)["0"].data.metrics["final/score"] == 0.5 and runs(uri)["study"].info.status == "FINISHED"


def test_events_sent_again_after_a_crash_change_nothing(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS)
    before = told(uri)
    (tmp_path / "tracking.offset").write_text("0")
    deliver(uri, tmp_path, [])
    after = runs(uri)
    assert told(uri) == before
    assert loss_history(uri, after["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_an_outage_loses_nothing_and_does_not_raise(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    tracking = deliver(dead, tmp_path, EVENTS[:5], drain_seconds=200)
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
        "import sys, os; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from test_mlflow import EVENTS; from qtarget.search.tracking.spool import open_spool\n"
        "spool = open_spool(Path(sys.argv[1])); [spool.append(event) for event in EVENTS[:4]]\n"
        "print('there', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent), str(TESTS)]
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
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "final/score")
    assert [each.value for each in history if each.step >= 0] == [0.5]


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
    dead = MlflowTracking("http://me:secret@127.0.0.1:9", "pair", "night", tmp_path / "dead", drain_seconds=200)
    dead.on_event(EVENTS[0])
    dead.close()
    assert dead.failure is not None and "secret" not in dead.failure and "secret" not in caplog.text


NAMES = (
    "prüfung=1.jsonl", "a//b", "/abs", "../up", "a/./b/", "x" * 400, "x" * 401, "tab\tnew\nline", "50% {b} [c] ?",
    "a=1", "a_x3d_1", "", "日本", "\udcff", "a:b", "'quoted' \"too\"", "plain/name-1.5 b_c",
)  # fmt: skip


def test_every_name_is_fit_for_mlflow_and_different_from_every_other() -> None:
    fitting = [fitting_name(f"final/tasks.{name}.score") for name in NAMES]
    assert len(set(fitting)) == len(NAMES) and fitting[-1] == f"final/tasks.{NAMES[-1]}.score"
    for name in [*fitting, *map(fitting_name, NAMES)]:
        _validate_metric_name(name)
        _validate_param_name(name)
        assert 0 < len(name) <= 250


def test_whatever_a_name_or_a_value_holds_is_tracked(tmp_path: Path, uri: str) -> None:
    tasks = {name: {"score": 0.5} for name in NAMES[:-2]}
    events = [
        StudyStarted("night", "folder", 2, 0, {"data": dict.fromkeys(NAMES, "\0 \udcff " + "y" * 9000)}),
        TrialStarted(0, "sft \0", {"evaluation": dict.fromkeys(NAMES, 1)}, "folder/0", 1, 4),
        TrialEnded(0, "complete", {"score": 0.5, "tasks": tasks}, "\0 because"),
        StudyEnded("finished", {"winner": {"number": 0, "title": "\0", "score": 0.5}}),
    ]
    tracking = deliver(uri, tmp_path, events)
    assert tracking.failure is None
    found = runs(uri)
    assert {trial: run.info.status for trial, run in found.items()} == {"study": "FINISHED", "0": "FINISHED"}
    assert sum(key.startswith("final/tasks.") for key in found["0"].data.metrics) == len(tasks)
    assert found["0"].data.metrics["final/tasks.prüfung_x3d_1.jsonl.score"] == 0.5


def test_an_experiment_has_a_description_and_keeps_the_one_that_somebody_wrote(tmp_path: Path, uri: str) -> None:
    client, note = MlflowClient(uri), "mlflow.note.content"
    deliver(uri, tmp_path, EVENTS[:1])
    made = client.get_experiment_by_name("pair")
    assert made is not None and "`final/score`" in made.tags[note]
    client.set_experiment_tag(made.experiment_id, note, "mine")
    client.set_experiment_tag(client.create_experiment("older"), "mlflow.experimentKind", "custom_model_development")
    deliver(uri, tmp_path, EVENTS[:1])
    MlflowTracking(uri, "older", "night", tmp_path / "older").close()
    kept, older = (client.get_experiment_by_name(name) for name in ("pair", "older"))
    assert kept is not None and kept.tags[note] == "mine"
    assert older is not None and older.tags[note] == made.tags[note]


def test_one_refused_event_keeps_nothing_behind_it(tmp_path: Path, uri: str, caplog) -> None:
    """A step that is no number, among others of one batch, and a trial whose file has been tampered with."""
    steps = [StepDone(0, step, 4, {"loss": "?" if step == 2 else 1.0 / step}) for step in (1, 2, 3, 4)]  # type: ignore[dict-item]
    broken = TrialStarted("no number", "sft", {}, "folder/0", 1, 4)  # type: ignore[arg-type]
    tracking = deliver(uri, tmp_path, [*EVENTS[:2], broken, *steps, *EVENTS[6:]])
    assert tracking.failure is None and caplog.text.count("MLflow refused") == 2
    found = runs(uri)
    assert loss_history(uri, found["0"]) == [(step, 1.0 / step) for step in (1, 3, 4)]
    assert {trial: run.info.status for trial, run in found.items()} == {
        "study": "FINISHED", "0": "FINISHED", "1": "FAILED",
    }  # fmt: skip


def test_runs_and_experiments_deleted_meanwhile_come_back_while_they_are_written(tmp_path: Path, uri: str) -> None:
    tracking = MlflowTracking(uri, "pair", "night", tmp_path)
    for event in EVENTS[:4]:
        tracking.on_event(event)
    client = MlflowClient(uri)
    while tracking._spool.backlog_bytes():
        assert tracking._thread.is_alive()
    for run in runs(uri).values():
        client.delete_run(run.info.run_id)  # type: ignore[attr-defined]
    client.delete_experiment(client.get_experiment_by_name("pair").experiment_id)  # type: ignore[union-attr]
    for event in EVENTS[4:]:
        tracking.on_event(event)
    tracking.close()
    found = runs(uri)
    assert set(found) == {"study", "0", "1"} and found["0"].info.status == "FINISHED"
    assert loss_history(uri, found["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_a_study_made_anew_under_the_old_name_has_runs_of_its_own(tmp_path: Path, uri: str) -> None:
    def night(identity: str, loss: float) -> None:
        started = StudyStarted("night", "folder", 1, 0, {"model": {"path": identity}}, {}, identity=identity)
        steps = [StepDone(0, step, 2, {"loss": loss}) for step in (1, 2)]
        deliver(uri, tmp_path, [started, EVENTS[1], *steps, EVENTS[7]])

    night("first", 1.0)
    night("second", 2.0)
    night("first", 1.0)  # gone on with
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("pair").experiment_id])  # type: ignore[union-attr]
    keys = [run.data.tags["qtarget.study"].replace("#", "@").rpartition("@")[2] for run in found]
    by_key = {(key, run.data.tags["qtarget.trial"]): run for key, run in zip(keys, found, strict=True)}
    assert len(found) == 4
    for identity, loss in (("first", 1.0), ("second", 2.0)):
        assert by_key[identity, "study"].data.params == {"model.path": identity}
        assert loss_history(uri, by_key[identity, "0"]) == [(1, loss), (2, loss)]


def test_a_torn_offset_is_no_obstacle(tmp_path: Path, uri: str) -> None:
    deliver(uri, tmp_path, EVENTS)
    for torn in (b"", b"12x", b"99999999"):
        (tmp_path / "tracking.offset").write_bytes(torn)
        assert deliver(uri, tmp_path, []).failure is None
    assert loss_history(uri, runs(uri)["0"]) == [(step, 1.0 / step) for step in (1, 2, 3, 4)]


def test_mlflow_gets_a_level_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for level, used in (("Debug", "DEBUG"), ("loud", "WARNING"), ("", "WARNING"), (" error", "ERROR")):
        monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", level)
        assert logging_level() == used


def test_a_level_in_lower_case_is_no_obstacle(tmp_path: Path, uri: str) -> None:
    """In a process of its own: MLflow reads it when it is imported."""
    code = (
        "import sys, logging; from pathlib import Path; from qtarget.search.tracking.connection import connect\n"
        "connect(sys.argv[1], Path(sys.argv[2])); print(logging.getLogger('mlflow').level)"
    )
    command = [sys.executable, "-c", code, uri, str(tmp_path)]
    environment = {**os.environ, "MLFLOW_LOGGING_LEVEL": "warning"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["30"], done.stderr


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:////base/mlflow.db"),
        ("sqlite:////else/mlflow.db", "sqlite:////else/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("http://me:p@ss/w@host:5000", "http://me:p%40ss%2Fw@host:5000"),
        ("postgresql://me:a b@host/db", "postgresql+psycopg://me:a%20b@host/db"),
        ("mariadb://host/db", "mysql+pymysql://host/db"),
    ],
)
def test_a_store_is_named_as_a_studys_other_paths_are(uri: str, expected: str) -> None:
    config = parse_study(small_config(tracking={"uri": uri}) | {"base": "/base"})
    assert tracking_uri(config) == expected


def test_two_spellings_of_a_host_are_one_study() -> None:
    places = ("postgresql://me@db/x", "postgresql://me@db.example.org:5432/x")
    assert len({run_key("night", place, "0123") for place in places}) == 1
    assert len({run_key("night", place, None) for place in places}) == 2, "of a study from before there were identities"
    assert not set("'\"`\\") & set(run_key("night", '/it\'s "a" `place`\\', None))


def test_local_servers_are_asked_past_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("no_proxy", "example.org, other")
    monkeypatch.setenv("NO_PROXY", "")
    past_proxies()
    assert os.environ["no_proxy"] == "example.org, other,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == "localhost,127.0.0.1,::1"
