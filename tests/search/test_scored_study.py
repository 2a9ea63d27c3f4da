"""A study through the command line: checked, raced, confirmed by two engines; what scores rest on is on the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_study import small_config, write_small_study


def study_file(folder: Path) -> Path:
    """Two baselines that learn, and trials with hopeless learning rates that race against them."""
    evaluation = {**small_config()["evaluation"], "problems": 20, "report_problems": 8}
    racing = {"error_rate": 0.3, "block": 4, "growth": 1.0}
    search = {**small_config()["search"], "trials": 5, "pruner": "none"}
    return write_small_study(
        folder,
        baselines=["sft", {"preset": "sft", "training": {"learning_rate": 0.02}}],
        training={**small_config()["training"], "steps": 24},
        space={"training": {"learning_rate": [1e-7, 1e-6, "log"]}},
        search=search,
        evaluation={**evaluation, "racing": racing},
        confirmation={"seeds": 2, "designs": 1},
    )


def qtarget(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "qtarget.search.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The study's folder, what `run --json` printed, and what people saw."""
    study = study_file(tmp_path_factory.mktemp("scored"))
    done = qtarget("run", str(study), "--workers", "2", "--json")
    return study.parent / "runs" / "small", json.loads(done.stdout), done.stderr


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/result.json"))]


def test_a_hopeless_trial_is_raced_out_and_says_against_whom(ran) -> None:
    folder, _, shown = ran
    raced = [result for result in results(folder) if result["state"] == "pruned"]
    assert raced, "none of three trials with a learning rate of 1e-6 was stopped"
    for result in raced:
        race = result["race"]
        assert race["stop"] and race["problems"] == result["num_problems"] < 20
        assert race["e_value"] >= race["threshold"] == pytest.approx(1 / 0.3)
        assert sum(result["verdicts"].values()) == race["problems"] and race["against"] in (0, 1)
    assert shown.count("race against trial") >= len(raced)


def test_the_backend_was_checked_against_plain_generate(ran) -> None:
    folder, _, _ = ran
    record = json.loads((folder / "backend.json").read_text())
    assert record["used"] == "transformers" and record["identical"] == record["compared"] == 4
    assert all(result["backend"] == "transformers" for result in results(folder))


def test_the_confirmation_is_not_raced_and_ends_with_a_verdict(ran) -> None:
    folder, summary, shown = ran
    assert summary["state"] == "finished"
    [confirmation] = folder.glob("confirmation-*")
    replicates = results(confirmation)
    assert len(replicates) == 2 * len(summary["confirmation"]["candidates"]) >= 4
    assert all(each["state"] == "complete" and each["num_problems"] == 8 and not each["race"] for each in replicates)
    assert summary["confirmation"]["problems"] == 8 and "Confirmed:" in shown


def test_confirm_goes_on_with_what_is_there(ran) -> None:
    folder, summary, _ = ran
    again = json.loads(qtarget("confirm", str(folder), "--workers", "2", "--json").stdout)
    assert again["comparisons"] == summary["confirmation"]["comparisons"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose problems have math golds, of which the first cannot be read; one repeats, one is in training."""
    folder = tmp_path_factory.mktemp("broken")
    study = study_file(folder)
    training = json.loads((folder / "train.jsonl").read_text().splitlines()[0])["prompt"]
    rows = [{"question": f"{n} plus {n}", "answer": str(2 * n)} for n in range(60)]
    rows += [{"question": "8 PLUS  8", "answer": "16"}, {"question": training, "answer": "1"}]
    rows[3]["answer"] = "\\frac{1}{"
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = study.read_text().replace("kind: exact", "kind: math").replace("problems: 20", "problems: 32")
    study.write_text(text)
    return study


def test_check_counts_bad_golds_repeats_and_overlap(broken: Path) -> None:
    done = qtarget("check", str(broken), "--json")
    problems = json.loads(done.stdout)["problems"]
    [task] = problems["tasks"]
    assert (task["read"], task["duplicates"], task["in_training"]) == (62, 1, 1)
    assert task["search"] + task["report"] == 60
    assert len(problems["unusable_golds"]) <= 1
    assert "1 repeated, 1 also in training (left out)" in done.stderr
    assert "answers equal those of plain generate()" in done.stderr


def test_check_refuses_golds_that_nothing_can_match(broken: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"{n} plus {n}", "answer": "\\frac{1}{"}) + "\n" for n in range(80))
    (broken.parent / "unreadable.jsonl").write_text(rows)
    study = broken.with_name("unreadable.yaml")
    study.write_text(broken.read_text().replace("problems.jsonl", "unreadable.jsonl"))
    done = qtarget("check", str(study), code=2)
    assert "Golds must be readable" in done.stderr and "all 40 problems" in done.stderr
