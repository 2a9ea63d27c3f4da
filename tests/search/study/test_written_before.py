"""What earlier code wrote opens as before: a finished study, one stopped in a trial, a cache, an export, a training.

`tests/data/study-written-flat.tar.xz` was written by the code as it was while floors were flat folders; `expected.json`
in it says what that code came to when it went on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from imports import ROOT

from qtarget.search.study.trial import TrialSpec

pytestmark = pytest.mark.slow

LOSSES = [2.359989, 2.057688, 1.845153, 1.612979, 1.34632, 1.254888, 1.104599, 1.053218]
"""Of the eight steps after the checkpoint, by the code that wrote it: without its moments they are others."""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with tarfile.open(ROOT / "tests" / "data" / "study-written-flat.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "study"


def python(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "QTARGET_CACHE": str(folder / "caches")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def qtarget(folder: Path, *arguments: str) -> Any:
    said = python(folder, "-m", "qtarget", *arguments)
    return json.loads(said) if "--json" in arguments else said


def scores(status: dict[str, Any]) -> list[tuple[int, str, float]]:
    return [(trial["number"], trial["title"], trial["score"]) for trial in status["trials"]]


def test_a_finished_study_is_read_reported_and_exported(written: Path) -> None:
    expected = json.loads((written / "expected.json").read_text("utf-8"))
    status = qtarget(written, "status", "study.yaml", "--json")
    assert scores(status) == scores({"trials": expected["small"]})
    assert {key: status["confirmation"][key] for key in expected["verdict"]} == expected["verdict"]
    page = Path(qtarget(written, "report", "study.yaml", "--json")["html"]).read_text("utf-8")
    assert "cannot be read" not in page
    qtarget(written, "export", "study.yaml", "again", "--unconfirmed")
    assert (written / "again" / "target_loss.py").is_file()


def test_specs_have_the_ids_they_had(written: Path) -> None:
    specs = [path for path in written.rglob("spec.json") if path.with_name("result.json").exists()]
    assert len(specs) > 4
    for path in specs:
        result = json.loads(path.with_name("result.json").read_text("utf-8"))
        assert TrialSpec.model_validate_json(path.read_bytes()).id == result["id"]


def test_trials_and_caches_are_the_same_today(written: Path) -> None:
    caches = sorted(path.name for path in (written / "caches").iterdir() if path.is_dir())
    assert qtarget(written, "cache", "verify").count("whole") == len(caches)
    gap = qtarget(written, "reproduce", "study.yaml", "2", "--json")
    assert gap["then"] == gap["now"] and gap["items"] > 0 and gap["completions_differ"] == 0
    assert sorted(path.name for path in (written / "caches").iterdir() if path.is_dir()) == caches, "none asked again"


def test_a_study_stopped_in_a_trial_goes_on_from_its_checkpoint(written: Path) -> None:
    expected = json.loads((written / "expected.json").read_text("utf-8"))["paused"][0]
    metrics = written / "runs" / "paused" / "trials" / "0000" / "metrics.jsonl"
    done = metrics.read_text("utf-8").splitlines()[:100]
    code = (
        "from qtarget.search.loop.supervisor import run_study; from qtarget.search.study.config_file import load_study"
    )
    python(written, "-c", f"{code}; run_study(load_study('paused.yaml'), trials=1)")
    assert metrics.read_text("utf-8").splitlines()[:100] == done, "steps are not trained twice"
    status = qtarget(written, "status", "paused.yaml", "--json")
    assert status["trials"][0]["attempts"] == expected["attempts"]
    assert scores({"trials": status["trials"][:1]}) == scores({"trials": [expected]})


def test_a_full_run_goes_on_from_its_checkpoint(written: Path) -> None:
    metrics = written / "trained" / "metrics.jsonl"
    upto = 6 + len(LOSSES)
    arguments = ["--out", "trained", "--steps", "400", "--tracking", "none"]
    command = [sys.executable, "-m", "qtarget", "train", "export/winner.yaml", *arguments]
    with subprocess.Popen(command, cwd=written, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while len(lines := metrics.read_text("utf-8").split("\n")) <= upto and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert [json.loads(line)["loss"] for line in lines[6:upto]] == pytest.approx(LOSSES, rel=1e-5)
