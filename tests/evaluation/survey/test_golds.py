"""How answers can be compared: one table of worked answers, and what each says of all alike."""

import pytest

from qtarget.evaluation.survey.golds import Pair, golds_of, kind_of_golds, reading_of_answers
from qtarget.spaces.errors import UserError
from qtarget.spaces.identity import derive_seed

OPTIONS = "Which?\nA. one\nB. two\nC. three"
STORY = "It was a long day, and nobody who was there wanted to talk about it later, whatever they were offered."


@pytest.mark.parametrize(
    ("question", "answer", "kind", "gold"),
    [
        (OPTIONS, "Two comes after one. The answer is (B).", "choice", "B"),
        ("How many?", "3 + 4 = 7\n#### 7", "numeric", "7"),
        ("How many?", "There are \\boxed{12} of them.", "numeric", "12"),
        ("Factor it.", "So it is \\boxed{(x-1)(x+1)}.", "math", "(x-1)(x+1)"),
        ("Capital of France?", "Paris", "exact", "Paris"),
        ("Good or bad?", "<answer>good</answer>", "exact", "good"),
        ("Which letter?", "d", "exact", "d"),
    ],
)
def test_kind_and_gold_of_worked_answers(question, answer, kind, gold):
    pairs = [Pair(f"{question} ({number})", answer) for number in range(10)]
    assert reading_of_answers(pairs).kind == kind
    assert golds_of(pairs, kind) == [gold] * 10


def test_one_answer_of_ten_may_have_no_end():
    pairs = [Pair("How many?", "#### 7")] * 9 + [Pair("Why?", STORY)]
    assert reading_of_answers(pairs).kind == "numeric"
    assert golds_of(pairs, "numeric")[-1] is None


def test_free_text_is_refused_with_counts_and_remedy():
    pairs = [Pair("Tell me.", STORY)] * 9 + [Pair("How many?", "#### 7")]
    with pytest.raises(UserError, match=r"numeric in 1 of 10.*--tasks problems.jsonl") as caught:
        reading_of_answers(pairs)
    assert caught.value.field == "evaluation.tasks"


def test_a_kind_that_is_said_needs_one_answer_that_it_reads():
    pairs = [Pair("Tell me.", STORY)] * 9 + [Pair("How many?", "#### 7")]
    assert reading_of_answers(pairs, "numeric").kind == "numeric"
    with pytest.raises(UserError, match="choice in 0 of 10"):
        reading_of_answers(pairs, "choice")


@pytest.mark.parametrize(
    ("golds", "question", "kind"),
    [
        (["7", "1,200", "3/4"], "q", "numeric"),
        (["7 cows.\n#### 7"], "q", "numeric"),
        (["\\frac{1}{2}", "x^2 + 1", "7"], "q", "math"),
        (["Paris", "Rome"], "q", "exact"),
        (["A", "c"], OPTIONS, "choice"),
        (["A", "c"], "q", "exact"),
    ],
)
def test_kind_of_known_answers(golds, question, kind):
    assert kind_of_golds(golds, [question] * len(golds)).kind == kind


def test_golds_that_are_stories_are_refused():
    with pytest.raises(UserError, match="longer texts"):
        kind_of_golds([f"{STORY} {derive_seed('story', n)}" for n in range(5)], ["q"] * 5)
