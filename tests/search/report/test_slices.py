"""Slices of a report by what generated problems say of themselves: real reasoning-gym metadata, not made-up ones."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("reasoning_gym")

from qtarget.evaluation.facts import facts_of
from qtarget.evaluation.problems.gym_tasks import stream
from qtarget.evaluation.problems.load import Problem, load_problems
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.search.report.items import Answer, Sheet, slices


def sheet(problems: tuple[Problem, ...], right: set[str]) -> Sheet:
    """Answers that are right for the problems in `right`."""
    answers = tuple(
        Answer(each.id, each.task, 0, each.prompt, "", each.gold, None, "correct" if each.id in right else "wrong", 1)
        for each in problems
    )
    return Sheet(answers, 0, {answer.problem: float(answer.correct) for answer in answers})


def test_a_sum_is_sliced_by_its_terms_as_its_question_shows_them() -> None:
    task = TaskSettings(source="gym", path="chain_sum", config={"max_terms": 4, "max_digits": 2})
    settings = EvaluationSettings(tasks=(task,), problems=60, report_problems=0)
    problems = load_problems(settings, Path(), 0).search
    terms = {each.id: 1 + sum(each.prompt.split(":")[1].count(sign) for sign in (" + ", " - ")) for each in problems}
    short = {name for name, count in terms.items() if count == 2}
    facts = {each.id: each.facts for each in problems}
    found = slices(sheet(problems, short), sheet(problems, set()), facts)
    by_terms = {part.name: part for part in found if part.by == "num_terms"}
    assert set(by_terms) == {"2", "3", "4"} and {part.by for part in found} >= {"num_terms", "num_digits"}
    for name, part in by_terms.items():
        assert part.problems == sum(count == int(name) for count in terms.values())
        assert (part.score, part.base) == (float(name == "2"), 0.0)
    assert not {"expression", "source_index", "source_dataset"} & {part.by for part in found}, (
        "no two are alike, or all"
    )


def test_names_in_a_text_and_the_answer_itself_are_no_slices() -> None:
    items = list(islice(stream(TaskSettings(source="gym", path="gsm_symbolic"), 0), 40))
    facts = {item.question: item.facts for item in items}
    assert all("answer_value" in each and "answer_cot" not in each for each in facts.values())
    problems = tuple(
        Problem(id=item.question, task="gsm", question_hash="", prompt=item.question, gold=item.gold) for item in items
    )
    found = {part.by for part in slices(sheet(problems, set()), sheet(problems, set()), facts)}
    assert found == {"prompt characters", "gold answer characters"}, "all are of one difficulty"


def test_columns_of_a_file_are_facts_but_not_what_is_asked_or_numbers_the_rows(tmp_path: Path) -> None:
    rows = [
        {"id": f"p{n}", "row_index": n, "question": f"q {n}", "answer": str(n), "level": n % 3, "text": 99 * "x",
         "meta": {"subject": "algebra", "parts": [1, 2]}, "flag": bool(n % 2)}
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = EvaluationSettings(tasks=(TaskSettings(path="p.jsonl", kind="numeric"),), problems=10)
    for problem in load_problems(settings, tmp_path, 0).search:
        number = int(problem.gold)
        assert problem.facts == {"level": number % 3, "meta.subject": "algebra", "flag": bool(number % 2)}
    assert facts_of({"a": float("nan"), "b": "", "c": None, "d": [1], "e": 2.5}) == {"e": 2.5}


def test_a_number_whose_values_are_rare_is_cut_in_parts() -> None:
    problems = tuple(Problem(id=f"{n:02}", task="t", question_hash="", prompt="p", gold="g") for n in range(30))
    facts = {each.id: {"level": min(int(each.id), 24) // 4} for each in problems}  # seven values, 2 to 6 problems each
    facts["29"] = {"level": 7}
    parts = [part for part in slices(sheet(problems, set()), sheet(problems, set()), facts) if part.by == "level"]
    assert [part.name for part in parts] == ["0 to 2", "3 to 4", "5 to 7"] and sum(
        part.problems for part in parts
    ) == 30
