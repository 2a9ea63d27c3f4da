"""reasoning-gym tasks: reproducible streams without repeats, disjoint splits, strict scores."""

from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("reasoning_gym")

from qtarget.evaluation.problems.gym_tasks import stream
from qtarget.evaluation.problems.load import load_problems
from qtarget.evaluation.problems.splits import content_hash, is_for_training
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.evaluation.verification.gym import GymItem
from qtarget.evaluation.verification.pool import shared_pool
from qtarget.evaluation.verification.verdict import Verdict
from qtarget.evaluation.verification.verify import Claim, judge_all
from qtarget.spaces.errors import UserError


def task(name: str, **config: object) -> TaskSettings:
    return TaskSettings(source="gym", path=name, config=config)


def items(name: str, count: int, stream_seed: int = 0, **config: object) -> list[GymItem]:
    return list(islice(stream(task(name, **config), stream_seed), count))


def verdicts(item: GymItem, answers: list[str]) -> list[str]:
    entry = item.entry.model_dump() if item.entry is not None else None
    claims = [Claim(answer, item.gold, item.kind, None, entry) for answer in answers]
    return [judgement.verdict.value for judgement in judge_all(claims, limit=30)]


def test_neighbouring_seeds_share_nothing_and_a_seed_repeats():
    first, again, neighbour = (items("gsm_symbolic", 60, seed) for seed in (42, 42, 43))
    assert first == again
    assert not {item.question for item in first} & {item.question for item in neighbour}


@pytest.mark.slow
def test_a_task_that_depends_on_the_hash_seed_is_reproducible():
    """isomorphic_strings iterates over a set of strings: processes with different hash seeds would disagree."""
    first = items("isomorphic_strings", 5)
    shared_pool().close()
    assert items("isomorphic_strings", 5) == first


def test_a_finite_task_ends():
    assert len(items("chain_sum", 1000, min_terms=2, max_terms=2, min_digits=1, max_digits=1)) < 400


def test_splits_are_disjoint_from_each_other_and_from_training():
    config = EvaluationSettings(tasks=(task("chain_sum"),), problems=50, report_problems=50)
    splits = [load_problems(config, Path(), seed) for seed in (1, 2)]
    search = {problem.question_hash for split in splits for problem in split.search}
    report = {problem.question_hash for split in splits for problem in split.report}
    training = {h for item in items("chain_sum", 300, 3) if is_for_training(h := content_hash(item.question))}
    assert len(training) > 100
    assert not search & report
    assert not (search | report) & training


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gsm_symbolic", ["{gold} or 7", "{gold}1", "1{gold}", "not {gold}", "{gold}.4"]),
        ("gcd", ["{gold} or 1", "{gold}0"]),
        ("syllogism", ["{gold} or no", "The words {gold}", "x"]),
        ("game_of_life_halting", ["maybe", "Trueish", "true and false"]),
        ("kakurasu", ["x {gold} y", "{gold}\n0 0 0"]),
        ("knights_knaves", ["{gold} or {gold}1", "x {gold}", "nobody"]),
        ("puzzle24", ["24", "1+1+1+21", "{gold} or 3", "__import__('os').getpid()"]),
        ("countdown", ["{gold} + 1", "{gold} or 3", "__import__('os').getpid()"]),
        ("prime_factorization", ["x", "{gold} × 2"]),
    ],
)
def test_only_full_marks_count(name, wrong):
    if name not in pytest.importorskip("reasoning_gym").factory.DATASETS:
        pytest.skip(f"this reasoning-gym has no {name}")
    for item in items(name, 2):
        found = verdicts(item, [item.gold, *(answer.replace("{gold}", item.gold) for answer in wrong)])
        assert found[0] == "correct"
        assert not {"correct", "error"} & set(found[1:]), list(zip(wrong, found[1:], strict=True))


def test_worked_solutions_are_judged_correct():
    """gsm_symbolic carries a solution that ends in "#### answer": training data whose own score must be 1."""
    for item in items("gsm_symbolic", 40):
        assert item.solution is not None
        assert verdicts(item, [item.solution, f"Reasoning first.\n{item.solution}\n"]) == ["correct", "correct"]


def test_every_digit_of_a_formatted_number_counts(tmp_path):
    config = EvaluationSettings(tasks=(task("number_format"),), problems=4)
    for problem in load_problems(config, tmp_path, 0).search:
        claims = [problem.claim(problem.gold), problem.claim(problem.gold + "1" if "." in problem.gold else "1")]
        assert [judged.verdict for judged in judge_all(claims)] == [Verdict.CORRECT, Verdict.WRONG]


def test_an_item_that_cannot_be_made_again_is_an_error():
    item = items("countdown", 1)[0]
    assert item.entry is not None
    other = item.entry.model_copy(update={"index": 400}).model_dump()
    [judged] = judge_all([Claim(item.gold, item.gold, item.kind, None, other)], limit=30)
    assert judged.verdict is Verdict.ERROR
    assert "came out different" in judged.detail


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("no_such_task", {}, "must be a reasoning-gym task, but got 'no_such_task'"),
        ("chain_sum", {"seed": 3}, "`config` must not set seed"),
        ("chain_sum", {"terms": 3}, "`config` of the gym task 'chain_sum' is not valid: .*terms"),
        ("chain_sum", {"min_terms": 9, "max_terms": 2}, "is not valid"),
    ],
)
def test_a_wrong_task_or_option_is_refused(name, config, message):
    with pytest.raises(UserError, match=message):
        items(name, 1, **config)
