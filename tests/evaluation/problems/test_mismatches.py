"""What a model learns in one way and is asked in another: words around questions, seams, ends, lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizer_families import family

from qtarget.evaluation.problems.load import load_problems
from qtarget.evaluation.problems.mismatches import Difference, _tasks, _wording, all_differences
from qtarget.evaluation.settings import EvaluationSettings
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.data.style import Style
from qtarget.trainers.data.tokenization import SEAM
from qtarget.trainers.settings import DataSettings

QUESTIONS = [f"what is {n} plus {7 * n % 5}" for n in range(8)]


def found(
    folder: Path,
    *,
    asked: str = "{}",
    answer: str = "the sum is 3",
    name: str = "byte_level",
    data: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    **task: Any,
) -> list[Difference]:
    """Differences between demonstrations, `asked` around their questions, and problems that ask the bare ones."""
    tokenizer = family(name)[0]
    rows = [{"prompt": asked.format(each), "completion": answer} for each in QUESTIONS]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    golds = [{"question": each.replace("plus", "and"), "answer": "1"} for each in QUESTIONS]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in golds))
    settings = EvaluationSettings.model_validate(
        {"tasks": [{"path": "p.jsonl", "kind": "numeric", **task}], "problems": 8, **(evaluation or {})}
    )
    learnt = load_demonstrations(DataSettings(path="d.jsonl", **(data or {})), tokenizer, folder)
    problems = load_problems(settings, folder, 0, style=learnt.style).search
    return all_differences(learnt, problems, settings, tokenizer, [2, 4])


def test_alike_is_alike(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    plain: dict[str, Any] = {"data": {"chat": False}, "chat": False}
    assert found(tmp_path, **plain) == []
    assert found(tmp_path, asked="Q: {}\nA:", template="Q: {question}\nA:", **plain) == []
    assert found(tmp_path, asked="{}\nBox it: \\boxed{{}}.", template="{question}\nBox it: \\boxed{}.") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "{question}\n\nBox it."}, "every prompt of task p.jsonl ends with 'Box it.', which not all"),
        ({"template": "Solve: {question}"}, "every prompt of task p.jsonl begins with 'Solve:'"),
        ({"asked": "{}\nA:"}, r"what every demonstration asks ends with '\nA:', not so the prompts of task p.jsonl"),
        ({"asked": "Please answer the question: {}"}, "asks begins with 'Please answer the question: "),
        ({"asked": "{} Think step by step"}, "asks ends with ' Think step by step'"),
    ],
)
def test_words_that_only_one_of_both_has_around_its_questions(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    (only,) = found(tmp_path, **changes)
    assert only.kind == "wording" and said in only.said


def test_questions_that_happen_to_begin_alike_are_no_difference(tmp_path: Path) -> None:
    assert found(tmp_path, asked="Well, {}") == []
    assert found(tmp_path, asked="one and the same question again") == []


def test_a_suite_asks_as_its_authors_do_and_that_is_said(tmp_path: Path) -> None:
    (task,) = _tasks(EvaluationSettings.model_validate({"tasks": [{"source": "suite", "path": "gsm8k"}]}))
    (only,) = _wording(task, Style(), [])  # a suite is not downloaded here
    assert "ends with 'Please reason step by step" in only.said


def test_answers_longer_than_a_completion_may_be(tmp_path: Path) -> None:
    (only,) = found(tmp_path, evaluation={"max_new_tokens": 4})
    assert only.kind == "length" and only.said.startswith("100 % of the answers")
    longest = int(only.said.rpartition("longest ")[2].removesuffix(")"))
    assert found(tmp_path, evaluation={"max_new_tokens": longest}) == []
    assert len(found(tmp_path, evaluation={"max_new_tokens": longest - 1})) == 1


def test_answers_that_go_on_where_a_completion_ends(tmp_path: Path) -> None:
    stop = {"evaluation": {"stop": ["\n", "3"]}}
    assert found(tmp_path, **stop) == [], "the stop is the answer's own end"
    (only,) = found(tmp_path, answer="the sum\nis 3", **stop)
    assert only.kind == "end" and only.said.startswith("8 of 8 answers") and r"the text '\n'" in only.said
    (only,) = found(tmp_path, answer="the sum</s> is 3")
    assert only.kind == "end" and "go on behind a token that ends a completion ('</s>', '<|end|>')" in only.said


def test_a_seam_is_a_difference() -> None:
    example = Demonstration(torch.tensor([5, 6]), torch.tensor([False, True]))
    note = f"{SEAM} (once, first in line 1 of d.jsonl)"
    data = Demonstrations((example,), num_rows=1, notes=("odd", note))
    assert all_differences(data, [], None, None, []) == [Difference("seam", note)]
