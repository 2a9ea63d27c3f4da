"""How problems are asked: like the demonstrations unless a task says otherwise, and what is said where it does."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qtarget.evaluation.problems.load import Problem, content_of, load_problems
from qtarget.evaluation.problems.mismatches import all_differences, differences, warnings
from qtarget.evaluation.settings import EvaluationSettings, RetentionSettings, TaskSettings
from qtarget.spaces.errors import UserError
from qtarget.spaces.identity import content_id
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.data.style import Style
from qtarget.trainers.settings import TrainingSettings

STYLE = Style(
    system="be brief",
    systems=1,
    template_kwargs={"thinking": False},
    day=date(2024, 2, 9),
    examples=(("What is 1 + 1?", "two"), ("What is 7 + 7?", "fourteen"), ("What?", "that")),
)


def problems(folder: Path, style: Style | None, **task: Any) -> tuple[Problem, ...]:
    rows = ({"question": f"What is {n} + {n}?", "answer": 2 * n} for n in range(10))
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = (TaskSettings(**{"path": "p.jsonl", "kind": "numeric", **task}),)
    return load_problems(EvaluationSettings(tasks=tasks, problems=8), folder, 0, style=style).search


@pytest.mark.parametrize(
    ("task", "turns"),
    [
        ({}, ["be brief"]),
        ({"system": "think"}, ["think"]),
        ({"system": "none"}, []),
        ({"system": ""}, []),
        ({"system": None}, []),
        ({"few_shot": 2}, ["be brief", "What is 1 + 1?", "two", "What is 7 + 7?", "fourteen"]),
        (
            {"few_shot": [{"question": "q", "answer": "a"}], "template": "Q {question}", "system": "none"},
            ["Q q", "a"],
        ),
        ({"chat": False}, []),
    ],
)
def test_turns_before_the_question(tmp_path: Path, task: dict[str, Any], turns: list[str]) -> None:
    for problem in problems(tmp_path, STYLE, **task):
        assert [turn["content"] for turn in problem.asking.turns] == turns
        assert problem.asking.day == STYLE.day
    assert all(not problem.asking.turns for problem in problems(tmp_path, None))


@pytest.mark.parametrize("said", ["From_Demonstrations", "from-demonstrations", "default"])
def test_a_way_to_say_the_default_is_no_system_message(said: str) -> None:
    assert TaskSettings(path="p.jsonl", system=said) == TaskSettings(path="p.jsonl")
    assert TaskSettings(path="p.jsonl", system="None").system is None


def test_half_a_character_in_a_problem_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"question": "a \\ud800", "answer": "1"}\n')
    with pytest.raises(UserError, match=r"Unicode text, but line 1 of p.jsonl"):
        load_problems(EvaluationSettings(tasks=(TaskSettings(path="p.jsonl"),), problems=2), tmp_path, 0)


def test_variables_are_those_of_the_demonstrations_unless_given(tmp_path: Path) -> None:
    assert problems(tmp_path, STYLE)[0].asking.variables == {"thinking": False}
    assert problems(tmp_path, STYLE, chat_template_kwargs={"thinking": True})[0].asking.variables == {"thinking": True}
    assert problems(tmp_path, STYLE, chat_template_kwargs={})[0].asking.variables == {}


def test_a_problem_whose_answer_is_shown_is_left_out(tmp_path: Path) -> None:
    shown = [{"question": "What is 3 + 3?", "answer": "6"}]
    asked = {problem.prompt for problem in problems(tmp_path, STYLE, few_shot=shown)}
    assert len(asked) == 8 and "What is 3 + 3?" not in asked


def test_more_examples_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`few_shot` must be at most 3, .* but got 4 for p.jsonl"):
        problems(tmp_path, STYLE, few_shot=4)
    with pytest.raises(UserError, match="at most 0"):
        problems(tmp_path, None, few_shot=1)


@pytest.mark.parametrize("key", [{"system": "s"}, {"few_shot": 1}, {"chat_template_kwargs": {"a": 1}}])
def test_turns_without_a_template_are_refused(key: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"`{next(iter(key))}` must go with `chat: true`"):
        TaskSettings(path="p.jsonl", chat=False, **key)


def test_problems_asked_otherwise_are_other_problems_and_bare_ones_the_same_as_ever(tmp_path: Path) -> None:
    plain, other = problems(tmp_path, None), problems(tmp_path, STYLE)
    assert content_id([content_of(plain)]) == content_id([[problem.id for problem in plain]])
    assert content_of(plain) == content_of(problems(tmp_path, Style(day=date(2020, 1, 1))))
    assert [problem.id for problem in plain] == [problem.id for problem in other]
    assert content_of(other) not in (content_of(plain), content_of(problems(tmp_path, STYLE, system="x")))


@pytest.mark.parametrize(
    ("style", "task", "said"),
    [
        (Style(), {}, None),
        (STYLE, {}, None),
        (STYLE, {"system": "none"}, "another system message"),
        (STYLE, {"system": "be brief"}, None),
        (Style(), {"system": "be brief"}, "another system message"),
        (Style(systems=2), {}, "2 different system messages"),
        (Style(chat=False), {}, "learnt as plain text, but task p.jsonl is asked through the chat template"),
        (Style(), {"chat": False}, "learnt through the chat template, but task p.jsonl is asked as plain text"),
        (Style(chat=False), {"chat": False}, None),
        (STYLE, {"chat_template_kwargs": {"thinking": True}}, "other variables of the chat template"),
        (Style(differing_kwargs=True), {}, "other variables of the chat template"),
        (Style(tools=True), {}, "show tools"),
        (STYLE, {"few_shot": 2}, "behind 2 worked example(s)"),
        (Style(chat=False), {"chat": False, "shots": [{"question": "q", "answer": "a"}]}, "behind 1 worked example(s)"),
    ],
)
def test_differences_between_learning_and_scoring_are_said(style: Style, task: Any, said: str | None) -> None:
    found = list(differences(TaskSettings(path="p.jsonl", **task), style))
    assert found == [] if said is None else len(found) == 1 and said in found[0].said


def test_everything_worth_a_look_is_in_one_list(demonstration: Demonstration) -> None:
    data = Demonstrations((demonstration,) * 3, num_rows=3, style=Style(chat=False), notes=("odd",))
    retention = RetentionSettings(tasks=(TaskSettings(path="r.jsonl"),))
    evaluation = EvaluationSettings(tasks=(TaskSettings(path="p.jsonl", chat=False),), retention=retention)
    differ = all_differences(data, [], evaluation, None, [2])
    found = warnings(data, ["unread"], TrainingSettings(effective_batch=4, micro_batch=2), [*differ, *differ])
    assert found[:2] == ["odd", "unread"]
    assert "is 4, more than the 3 demonstrations" in found[2] and "task r.jsonl" in found[3] and len(found) == 4
    enough = Demonstrations((demonstration,) * 4, num_rows=4)
    assert all_differences(enough, [], None, None, []) == []
    assert warnings(enough, [], TrainingSettings(effective_batch=4, micro_batch=4), []) == []


@pytest.fixture
def demonstration() -> Demonstration:
    import torch

    return Demonstration(torch.tensor([1, 2]), torch.tensor([False, True]))
