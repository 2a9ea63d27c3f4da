"""A study through the command line: checked, raced, confirmed by two engines; what scores rest on is on the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import small_config, write_small_study

from qtarget.search.engine.check import check
from qtarget.search.study.config_file import load_study
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


def study_file(folder: Path) -> Path:
    """Two baselines that learn, and trials with hopeless learning rates that race against them."""
    evaluation = {**small_config()["evaluation"], "problems": 20, "report_problems": 8}
    racing = {"error_rate": 0.3, "block": 4, "growth": 1.0}
    search = {**small_config()["search"], "trials": 5, "pruner": "none"}
    return write_small_study(
        folder,
        baselines=["sft", "label_smoothing"],
        training={**small_config()["training"], "steps": 24},
        space={"training": {"learning_rate": [1e-7, 1e-6, "log"]}},
        search=search,
        evaluation={**evaluation, "racing": racing},
        confirmation={"seeds": 2, "designs": 1, "longer": None},
    )


def qtarget(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "qtarget", *arguments],
        env={**os.environ, "COLUMNS": "300"},
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
    assert 3 <= len(replicates) <= 2 * len(summary["confirmation"]["candidates"])
    assert all(each["state"] == "complete" and each["num_problems"] == 8 and not each["race"] for each in replicates)
    assert summary["confirmation"]["problems"] == 8 and "Confirmed:" in shown


def test_confirm_goes_on_with_what_is_there(ran) -> None:
    folder, summary, _ = ran
    again = json.loads(qtarget("confirm", str(folder), "--json").stdout)
    assert again["comparisons"] == summary["confirmation"]["comparisons"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose problems have math golds, a quarter of them unreadable; one repeats, one is in training."""
    folder = tmp_path_factory.mktemp("broken")
    study = study_file(folder)
    training = json.loads((folder / "train.jsonl").read_text().splitlines()[0])["prompt"]
    golds = ["\\frac{1}{" if n % 4 == 0 else str(2 * n) for n in range(100)]
    rows = [{"question": f"{n} plus {n}", "answer": gold} for n, gold in enumerate(golds)]
    rows += [{"question": "8 PLUS  8", "answer": "16"}, {"question": training, "answer": "1"}]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.write_text(study.read_text().replace("kind: exact", "kind: math").replace("problems: 20", "problems: 32"))
    return study


def test_check_counts_bad_golds_repeats_and_overlap(broken: Path) -> None:
    done = qtarget("check", str(broken), "--json")
    problems = json.loads(done.stdout)["problems"]
    [task] = problems["tasks"]
    assert (task["read"], task["duplicates"], task["in_training"]) == (102, 1, 1)
    assert task["search"] + task["report"] == 100
    unusable = problems["unusable_golds"]
    assert 0 < len(unusable) < 40 and all(each["gold"] == "\\frac{1}{" for each in unusable)
    assert f"{len(unusable)} that no answer can match" in done.stderr
    assert "1 repeated, 1 also in training (left out)" in done.stderr
    assert "answers equal those of plain generate()" in done.stderr


def test_check_refuses_golds_that_nothing_can_match_and_prompts_that_do_not_fit(broken: Path) -> None:
    rows = "".join(json.dumps({"question": f"{n} plus {n}", "answer": "\\frac{1}{"}) + "\n" for n in range(120))
    (broken.parent / "unreadable.jsonl").write_text(rows)
    study = broken.with_name("unreadable.yaml")
    study.write_text(broken.read_text().replace("problems.jsonl", "unreadable.jsonl"))
    with pytest.raises(UserError, match="Golds must be readable, but those of all 40 problems are not"):
        check(load_study(study))
    study.write_text(broken.read_text().replace("max_new_tokens: 3", "max_new_tokens: 250"))
    with pytest.raises(UserError, match=r"the model's 256 positions, .* at worst, too long for \d+ of 40 problems"):
        check(load_study(study))


def test_evaluate_tells_tasks_apart_and_shows_a_verifier_that_raises(broken: Path) -> None:
    folder = broken.parent
    (folder / "grading.py").write_text("def judge(completion, gold):\n    raise ZeroDivisionError('by design')\n")
    words = [{"path": "train.jsonl", "question_column": "prompt", "answer_column": "completion", "kind": "exact"}]
    words += [{**words[0], "verifier": "grading:judge", "path": "words.jsonl"}]
    (folder / "words.jsonl").write_text('{"prompt": "an x", "completion": "x"}\n{"prompt": "a y", "completion": "y"}\n')
    settings = {"tasks": words, "problems": 4, "samples": 2, "temperature": 0.5, "max_new_tokens": 3}
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"evaluation": settings}))
    done = qtarget(
        "evaluate", str(folder / "model"), str(folder / "tasks.yaml"), "--out", str(folder / "out"), "--json"
    )
    result = json.loads(done.stdout)
    assert result["verdicts"]["error"] == 4 == 8 - sum(n for name, n in result["verdicts"].items() if name != "error")
    assert result["tasks"].keys() == {"train", "words"} and result["tasks"]["words"]["score"] == 0
    assert "first error: ZeroDivisionError: by design" in done.stderr and "pass@2" in done.stderr
    assert len((folder / "out" / "items.jsonl").read_text().splitlines()) == 8
