"""A whole study with a real model, undisturbed and under fire: the numbers must be the same, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open
from scripted_study import Recorder
from small_study import small_config, write_small_study

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config_file import load_study
from qtarget.trainers.loop.checkpoint import checkpoint_file

pytestmark = pytest.mark.slow

BASELINES = ["sft", "kd", {"preset": "target_sft", "knobs": {"eta": 0.0}}, "dft"]
SEARCH = {**small_config()["search"], "trials": 6, "startup_trials": 4}
EVALUATION = {**small_config()["evaluation"], "racing": {"block": 4}}
TRAINING = {**small_config()["training"], "steps": 24, "learning_rate": 0.003}
RUN = (
    "import sys; from qtarget.search.study.config_file import load_study\n"
    "from qtarget.search.loop.supervisor import run_study\n"
    "print(run_study(load_study(sys.argv[1])).state)"
)


def write_study(folder: Path) -> Path:
    return write_small_study(folder, baselines=BASELINES, search=SEARCH, training=TRAINING, evaluation=EVALUATION)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[list[TrialRecord], Recorder]:
    config = load_study(write_study(tmp_path_factory.mktemp("undisturbed")))
    recorder = Recorder()
    assert run_study(config, [recorder]).state == "finished"
    return load_history(config), recorder


def test_every_slot_is_finished_with_its_files(undisturbed) -> None:
    records, recorder = undisturbed
    assert [record.state for record in records].count("complete") >= 4
    assert all(record.finished for record in records) and len(records) == 6
    complete = [record for record in records if record.state == "complete" and record.same_as is None]
    for record in complete:
        result = json.loads((record.folder / "result.json").read_text())
        assert (result["score"], result["state"], result["steps"]) == (record.score, "complete", 24)
        assert sum(record.verdicts.values()) == 16 == len((record.folder / "items.jsonl").read_text().splitlines())
        steps = [json.loads(line)["step"] for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 25))
    assert len(recorder.of("StepDone")) >= 24 * len(complete)
    assert {event.number for event in recorder.of("ProblemsDone")} >= {record.number for record in complete}


def test_the_model_has_learnt_something_and_the_tie_is_credited(undisturbed) -> None:
    records, _ = undisturbed
    assert max(record.score for record in records if record.score is not None) > 0.2
    target_sft, dft = records[2], records[3]
    assert dft.same_as == target_sft.number and dft.score == target_sft.score


def test_only_the_best_checkpoint_is_kept(undisturbed) -> None:
    records, _ = undisturbed
    best = max((r for r in records if r.state == "complete" and r.same_as is None), key=lambda r: (r.score, -r.number))
    kept = {record.number for record in records if record.same_as is None and checkpoint_file(record.folder).exists()}
    assert kept == {best.number}


def test_kills_and_interrupts_change_nothing(undisturbed, tmp_path: Path) -> None:
    expected, _ = undisturbed
    study = write_study(tmp_path)
    config = load_study(study)

    def metrics(number: int) -> Path:
        return config.study_folder / "trials" / f"{number:04d}" / "metrics.jsonl"

    with start(study) as first:
        wait_for(metrics(0), lines=5)
        kill(engine_of(first))  # the trial goes on from its checkpoint in a new engine
        wait_for(metrics(1), lines=9)
        engine_of(first).send_signal(signal.SIGTERM)  # the whole job, its engine first
        first.send_signal(signal.SIGTERM)
        assert first.wait(240) == 0 and first.stdout.read().strip() == "stopped"
    with safe_open(checkpoint_file(metrics(1).parent), "pt") as saved:
        assert int(saved.metadata()["step"]) == len(metrics(1).read_text().splitlines()), "no step is done twice"
    states = [record.state for record in load_history(config)]
    assert "running" not in states and states.count("waiting") >= 4
    with start(study) as second:
        wait_for(metrics(2), lines=5)
        engine = engine_of(second)
        kill(psutil.Process(second.pid))
        engine.wait(200)  # an engine does not outlive its supervisor
    assert [record.state for record in load_history(config)].count("running") == 1, "nobody could tidy up"
    with start(study) as third:
        assert third.wait(240) == 0 and third.stdout.read().strip() == "finished"
    found = load_history(config)
    assert [outcome(record) for record in found] == [outcome(record) for record in expected]
    assert [record.attempts for record in found][:3] == [2, 2, 2]
    assert [link["why"] for record in found[:3] for link in record.chain] == ["crash", "stopped", "supervisor lost"]
    assert all(
        len(metrics(record.number).read_text().splitlines()) == 24
        for record in found
        if record.state == "complete" and record.same_as is None
    )


def outcome(record: TrialRecord) -> tuple[object, ...]:
    return record.number, record.state, record.score, record.standard_error, dict(record.rungs), dict(record.parameters)


def start(study: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(study)], stdout=subprocess.PIPE, text=True)


def engine_of(supervisor: subprocess.Popen[str]) -> psutil.Process:
    return next(child for child in psutil.Process(supervisor.pid).children() if "engine" in " ".join(child.cmdline()))


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def wait_for(path: Path, lines: int, seconds: float = 120) -> None:
    """Until a file has so many lines."""
    deadline = time.monotonic() + seconds
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.01)
