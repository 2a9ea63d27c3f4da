"""Problems that no trial has seen: enough of them, in a fixed order, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from qtarget.evaluation.problems.load import Problem, load_problems
from qtarget.evaluation.problems.splits import content_hash
from qtarget.evaluation.problems.untouched import untouched_problems
from qtarget.evaluation.settings import EvaluationSettings
from qtarget.spaces.errors import UserError


def settings(folder: Path, report: int, searched: int = 10) -> EvaluationSettings:
    """Two tasks of 30 problems each, the second one twice as heavy; one question comes in both."""
    for name, start in (("a", 0), ("b", 29)):
        rows = ({"question": f"what is {n} + 1?", "answer": str(n + 1)} for n in range(start, start + 30))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [{"path": "a.jsonl", "kind": "exact"}, {"path": "b.jsonl", "kind": "exact", "weight": 2}]
    return EvaluationSettings.model_validate({"tasks": tasks, "problems": searched, "report_problems": report})


def ids(problems: Iterable[Problem]) -> set[str]:
    return {problem.id for problem in problems}


def test_what_a_search_without_report_problems_saw_is_left_out(tmp_path: Path) -> None:
    searched = load_problems(settings(tmp_path, 0), tmp_path, 0).search
    asked = untouched_problems(settings(tmp_path, 12), tmp_path, 0, (), ids(searched))
    assert len(asked) == 12 == len({each.question_hash for each in asked})
    assert not {each.question_hash for each in asked} & {each.question_hash for each in searched}
    assert [each.task for each in asked].count("b") == 8, "in proportion to the weights"
    assert asked == untouched_problems(settings(tmp_path, 12), tmp_path, 0, (), ids(searched))


def test_the_report_half_comes_first(tmp_path: Path) -> None:
    splits = load_problems(settings(tmp_path, 9), tmp_path, 0)
    asked = untouched_problems(settings(tmp_path, 9), tmp_path, 0, (), ids(splits.search))
    assert ids(asked) == ids(splits.report)
    more = untouched_problems(settings(tmp_path, 30), tmp_path, 0, (), ids(splits.search))
    assert ids(splits.report) < ids(more) and not ids(more) & ids(splits.search)


def test_training_prompts_are_no_problems(tmp_path: Path) -> None:
    training = {content_hash(f"what is {n} + 1?") for n in range(25)}
    asked = untouched_problems(settings(tmp_path, 6), tmp_path, 0, training, ())
    assert not {each.question_hash for each in asked} & training


def test_too_few_are_refused_with_their_number(tmp_path: Path) -> None:
    searched = load_problems(settings(tmp_path, 0, searched=42), tmp_path, 0).search
    with pytest.raises(
        UserError, match=r"needs 16 problems of b\.jsonl that no trial has seen, but 1 are left"
    ) as raised:
        untouched_problems(settings(tmp_path, 24), tmp_path, 0, (), ids(searched))
    assert raised.value.field == "evaluation.report_problems"
