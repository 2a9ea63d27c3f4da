"""Which columns ask and which answer, in the forms that public data sets have."""

import pytest

from qtarget.evaluation.survey.columns import demonstration_columns, problem_columns, shape_of
from qtarget.spaces.errors import UserError

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"messages": TALK}, {}),
        ({"prompt": "q", "completion": "a"}, {}),
        ({"instruction": "q", "input": "", "output": "a"}, {}),
        ({"text": "t"}, {}),
        ({"question": "q", "answer": "a"}, {"prompt_column": "question", "completion_column": "answer"}),
        ({"Question": "q", "Response": "a", "id": 7}, {"prompt_column": "Question", "completion_column": "Response"}),
        (
            {"instruction": "q", "context": "", "response": "a"},
            {"prompt_column": "instruction", "completion_column": "response"},
        ),
        ({"text": "t", "query": "q", "solution": "a"}, {"prompt_column": "query", "completion_column": "solution"}),
        ({"dialogue": [{"from": "human", "value": "q"}]}, {"messages_column": "dialogue"}),
        ({"chosen": TALK, "rejected": TALK}, {"messages_column": "chosen"}),
    ],
)
def test_columns_are_found_by_name_and_content(row, found):
    assert demonstration_columns([row], {}, "data") == found


def test_what_somebody_names_wins():
    said = {"prompt_column": "b", "completion_column": "a"}
    assert demonstration_columns([{"a": "x", "b": "y"}], said, "data") == said


def test_columns_that_are_not_read_are_said():
    row = {"instruction": "q", "context": "c", "response": "a"}
    named = demonstration_columns([row], {}, "data")
    assert shape_of(row, named) == (("instruction", "response"), ("context",))
    assert shape_of({"instruction": "q", "input": "", "output": "a"}, {})[1] == ()


def test_data_that_is_nothing_says_what_was_looked_for_what_there_is_and_what_to_pass():
    with pytest.raises(UserError, match=r"looked for messages.*data has x \(int '3'\), y .*--prompt-column") as caught:
        demonstration_columns([{"x": 3, "y": "z"}], {}, "data")
    assert caught.value.field == "data.prompt_column"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "q", "answer": 7}, {"question_column": "question", "answer_column": "answer"}),
        ({"problem": "q", "solution": "s"}, {"question_column": "problem", "answer_column": "solution"}),
        (
            {"question": "q", "choices": ["a", "b"], "answer": 1},
            {"question_column": "question", "answer_column": "answer", "choices_column": "choices"},
        ),
    ],
)
def test_columns_of_problems(row, found):
    assert problem_columns([row], "problems") == found


def test_problems_without_a_gold_are_refused():
    with pytest.raises(UserError, match="one with the known answer"):
        problem_columns([{"question": "q"}], "problems")
