"""Problems split off demonstrations: nothing is lost, nothing is asked twice, and content alone decides."""

import json
import random

import pytest

from qtarget.evaluation.problems.splits import content_hash, is_for_search
from qtarget.evaluation.survey.held_out import hold_out, read_rows, reading_of
from qtarget.spaces.errors import UserError
from qtarget.trainers.settings import DataSettings


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def split(tmp_path):
    """Splits rows; the demonstrations that are left, the problems, and what was held out."""

    def run(rows, name="one"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        read = read_rows(DataSettings(path="all.jsonl"), folder)
        held, _ = hold_out(read, folder, reading_of(read, None))
        return rows_of(folder / "demonstrations.jsonl"), rows_of(folder / "problems.jsonl"), held

    return run


def sums(count):
    return [
        {"prompt": f"How much is {n} + {n * n}?", "completion": f"#### {n + n * n}", "source": {"row": n}}
        for n in range(count)
    ]


def test_every_row_is_on_one_side_and_whole(split):
    rows = sums(80)
    left, problems, held = split(rows)
    asked = {each["question"] for each in problems}
    assert left == [row for row in rows if row["prompt"] not in asked]
    assert len(left) + len(problems) == 80 == held.demonstrations + held.removed
    assert len(problems) == 20 == held.problems
    answers = {row["prompt"]: row["completion"].removeprefix("#### ") for row in rows}
    assert all(answers[each["question"]] == each["answer"] for each in problems)


def test_both_halves_get_their_share(split):
    _, problems, _ = split(sums(80))
    searched = sum(is_for_search(content_hash(each["question"])) for each in problems)
    assert searched == 10


def test_the_order_of_rows_decides_nothing(split):
    rows = sums(40)
    mixed = random.Random(1).sample(rows, len(rows))
    assert sorted(map(str, split(rows)[1])) == sorted(map(str, split(mixed, "two")[1]))


def test_a_question_that_is_a_line_of_another_row_leaves_with_it(split):
    rows = sums(16)
    again = [{"prompt": f"Be exact.\n\n{row['prompt']}", "completion": row["completion"], "source": {}} for row in rows]
    left, problems, held = split(rows + again)
    asked = {each["question"] for each in problems}
    assert asked and not any(question in row["prompt"] for question in asked for row in left)
    assert held.removed > len(problems)


def test_a_question_that_many_rows_ask_is_no_problem(split):
    rows = [*sums(16), *({"prompt": "How much is it, then?", "completion": f"#### {n}"} for n in range(9))]
    _, problems, _ = split(rows)
    assert all(each["question"] != "How much is it, then?" for each in problems)


def test_too_few_questions_are_refused_with_what_to_pass(split):
    with pytest.raises(UserError, match=r"have 5; name problems.*--tasks"):
        split(sums(5))


def test_whole_texts_hold_no_problems(tmp_path):
    (tmp_path / "all.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    read = read_rows(DataSettings(path="all.jsonl"), tmp_path)
    with pytest.raises(UserError, match="none of the 2 is one"):
        reading_of(read, None)
