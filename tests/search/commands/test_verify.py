"""`qtarget verify` from the command line: counts and changes for people and for programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = [
    {"completion": "The answer is 5.", "gold": "5", "kind": "numeric", "verdict": "correct"},
    {"completion": "\\boxed{x>5} [bold]", "gold": "5", "kind": "math", "verdict": "correct"},
    {"completion": "\\boxed{北京}", "gold": "北京", "kind": "math", "correct": False},
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qtarget", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def stored(folder: Path) -> str:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_people_see_counts_and_what_changed(tmp_path):
    done = run(stored(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "3 answers" in done.stdout and "2 verdict(s) changed; correct: 2 before, 2 now" in done.stdout
    assert "x>5" in done.stdout and "北京" in done.stdout


@pytest.mark.slow
def test_programs_read_every_change(tmp_path):
    done = run(stored(tmp_path), "--json")
    facts = json.loads(done.stdout)
    assert (facts["answers"], facts["correct_before"], facts["correct"]) == (3, 2, 2)
    assert [(row["line"], row["before"], row["now"]) for row in facts["changed"]] == [
        (2, "correct", "wrong"),
        (3, "not correct", "correct"),
    ]
    assert len(facts["judged_by"]) == 16


def test_what_cannot_be_read_is_a_usage_error(tmp_path):
    done = run(str(tmp_path / "absent.jsonl"))
    assert done.returncode == 2 and "cannot be read" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_verifier_beside_the_study_is_found(tmp_path):
    (tmp_path / "my_grading.py").write_text("def ends(completion, gold):\n    return completion.endswith(gold)\n")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"completion": "so", "gold": "so", "verifier": "my_grading:ends"}) + "\n")
    done = run(str(path), "--base", str(tmp_path), "--json")
    assert json.loads(done.stdout)["correct"] == 1
