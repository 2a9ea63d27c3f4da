"""Which paused trial goes on, and what a budget of steps is spent on: Optuna's own storage, scores made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_study import small_config

from qtarget.search.store.halving import FACTOR, GRANTED, Halving, paused_at
from qtarget.search.store.patience import Patience
from qtarget.search.store.queue import Claim, Queue, Slot, Verdict
from qtarget.search.store.slots import RIVAL
from qtarget.search.store.storage import StudyStorage
from qtarget.search.study.config_file import parse_study
from qtarget.search.study.trial import Rung
from qtarget.search.terminal.check import estimate_seconds
from qtarget.search.terminal.rungs import agreement
from qtarget.spaces.errors import UserError

STEPS = 36
RUNGS = (4, 12)
WHOLE = 36 + 1 + 3
"""With the branches: a quarter of each rung."""


@pytest.fixture
def storage() -> StudyStorage:
    """Optuna's own storage in memory: the rules are the same in all, and claims of processes are tested elsewhere."""
    backend = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="small", storage=backend, direction="maximize")
    return StudyStorage("memory", backend, nullcontext, Patience())


def open_queue(storage: StudyStorage, trials: int, first: list[Slot] | None = None, **search: Any) -> Queue:
    given = small_config()
    given["training"]["steps"] = STEPS
    given["search"] = {"trials": trials, "sampler": "random", "pruner": "asha"}
    given["search"] |= {"startup_trials": 0, "rungs": ["1/9", "1/3"], "rung_decay": 0.25, **search}
    queue = Queue(parse_study(given), storage)
    queue.fill([*(first or []), *[Slot()] * trials][:trials], trials)
    return queue


def train(queue: Queue, claim: Claim, score: float, worth: float = 0.0) -> None:
    """What an engine does with a claim, up to its pause or its end; `worth`: of a trial's end, beside its score."""
    if not claim.trial.params:
        claim.trial.suggest_float("x", 0.0, 1.0)
    for rung in RUNGS:
        if rung not in queue.passed(claim):
            queue.report(claim, rung, score)
            if queue.pauses(claim):
                queue.pause(claim, rung)
                return
    queue.finish(claim, Verdict(TrialState.COMPLETE, score + worth))


def run(queue: Queue, scores: Callable[[], float]) -> list[int]:
    """One worker until nothing is left; the numbers claimed, in order."""
    claimed = []
    while (claim := queue.claim()) is not None:
        claimed.append(claim.number)
        train(queue, claim, max(queue.rungs(claim).values(), default=None) or scores())
    return claimed


def test_a_trial_waits_at_its_rung_and_goes_on_as_itself(storage: StudyStorage) -> None:
    queue = open_queue(storage, 4)
    for score in (0.1, 0.9, 0.2):
        train(queue, queue.claim(), score)
    assert [paused_at(trial) for trial in queue.slots()[:3]] == [4, 4, 4]
    again = queue.claim()
    assert (again.number, again.attempt, again.attributes[GRANTED]) == (1, 1, 12), "the best of three"
    assert queue.passed(again) == [4] and paused_at(again.frozen) is None
    assert queue.counts() == {"waiting": 1, "running": 1, "complete": 0, "pruned": 0, "fail": 0, "paused": 2}


def test_a_rung_that_tells_nothing_stops_nobody(storage: StudyStorage) -> None:
    queue = open_queue(storage, 9)
    for score in (0.0, 0.0):
        train(queue, queue.claim(), score)
    for number in (2, 0, 1):
        claim = queue.claim()
        assert claim.number == number and claim.attributes[GRANTED] == (4 if number == 2 else 12)
        if number == 2:
            queue.report(claim, 4, 0.0)
            assert not queue.pauses(claim), "three that are equal: all go on"


def test_a_trial_that_is_promoted_at_once_does_not_pause(storage: StudyStorage) -> None:
    queue = open_queue(storage, 4)
    for score in (0.1, 0.2):
        train(queue, queue.claim(), score)
    best = queue.claim()
    queue.report(best, 4, 0.9)
    assert not queue.pauses(best) and best.frozen.user_attrs[GRANTED] == 12


def test_the_budget_is_steps_and_none_are_left_that_anything_could_use(storage: StudyStorage) -> None:
    queue = open_queue(storage, 9)
    run(queue, random.Random(1).random)
    halving, slots = queue.halving, queue.slots()
    spent = halving.spent(slots)
    done = sum(trial.user_attrs[GRANTED] + sum(rung // 4 for rung in RUNGS if rung <= trial.user_attrs[GRANTED])
               for trial in slots)  # fmt: skip
    assert halving.whole == WHOLE and halving.budget == 9 * WHOLE and spent == done <= 9 * WHOLE
    assert len(slots) > 12, "more designs than whole trials"
    assert 9 * WHOLE - spent < min(halving.cost(paused_at(t), halving.after(paused_at(t)))
                                   for t in slots if paused_at(t) is not None)  # fmt: skip
    assert queue.is_done(9) and queue.unfinished() == 0 and queue.claim() is None


def test_workers_that_take_turns_spend_no_more(storage: StudyStorage) -> None:
    queues = [open_queue(storage, 6) for _ in range(3)]
    held, draw = {}, random.Random(2)
    while True:
        index = draw.randrange(3)
        if index in held:
            train(queues[index], held.pop(index), draw.random())
        elif (claim := queues[index].claim()) is not None:
            held[index] = claim
        elif not held:
            break
        assert queues[0].halving.spent(queues[0].slots()) <= 6 * WHOLE
    assert queues[0].is_done(6)


def test_what_is_compared_stays_whole_and_counts_at_the_rungs(storage: StudyStorage) -> None:
    first = [Slot({}, {"baseline": name}) for name in ("sft", "a", "b")] + [Slot({}, {"repeat": 1})]
    queue = open_queue(storage, 6, first, anchors="published")
    for score in (0.3, 0.5, 0.7):
        train(queue, queue.claim(), score)
    queue.finish(queue.claim(), Verdict(TrialState.COMPLETE, 0.6))  # a seed has no rungs
    assert [trial.state for trial in queue.slots()[:4]] == [TrialState.COMPLETE] * 4
    assert queue.halving.spent(queue.slots()) == 3 * WHOLE + STEPS
    train(queue, queue.claim(), 0.65)
    assert paused_at(queue.slots()[4]) == 4, "a baseline is the best of four"


def test_of_published_objectives_the_best_goes_on_however_far_designs_are_ahead(storage: StudyStorage) -> None:
    queue = open_queue(storage, 8, [Slot({}, {"baseline": name}) for name in ("sft", "sft", "dft", "kd")])
    for score in (0.2, 0.1, 0.3, 0.4, 0.9, 0.8):
        train(queue, queue.claim(), score)
    states = [paused_at(trial) or trial.state.name for trial in queue.slots()[:4]]
    assert states == ["COMPLETE", "COMPLETE", 4, "COMPLETE"]


def test_a_published_objective_waits_until_its_rivals_were_begun(storage: StudyStorage) -> None:
    queue = open_queue(storage, 8, [Slot({}, {"baseline": name}) for name in ("sft", "kd", "dft")])
    for score in (0.2, 0.4):
        train(queue, queue.claim(), score)
    assert paused_at(queue.slots()[1]) == 4, "who knows what dft comes to"
    other = queue.claim()
    assert other.number == 2
    train(queue, other, 0.3)
    assert paused_at(queue.slots()[2]) == 4
    assert queue.claim().number == 1


def test_plain_sft_is_tuned_against_itself(storage: StudyStorage) -> None:
    rivals = [Slot({}, {RIVAL: preset}) for preset in ("sft", "kd")]
    queue = open_queue(storage, 8, [Slot({}, {"baseline": "sft"})] * 2 + rivals)
    for score in (0.2, 0.1):
        train(queue, queue.claim(), score)
    tuned = queue.claim()
    queue.report(tuned, 4, 0.3)
    assert not queue.pauses(tuned), "the best of three"


def test_a_larger_budget_goes_on_with_those_that_wait(storage: StudyStorage) -> None:
    queue = open_queue(storage, 4)
    run(queue, random.Random(3).random)
    waiting = {trial.number for trial in queue.slots() if paused_at(trial) is not None}
    assert waiting and queue.is_done(4)
    larger = open_queue(storage, 8)
    assert not larger.is_done(8)
    claimed = run(larger, lambda: 0.001)
    assert waiting & set(claimed) and max(claimed) > max(waiting), "old ones are promoted, new ones begun"
    assert larger.halving.spent(larger.slots()) <= 8 * WHOLE and larger.is_done(8)


def test_a_smaller_budget_takes_back_nothing_that_was_begun(storage: StudyStorage) -> None:
    queue = open_queue(storage, 6)
    for score in (0.1, 0.2):
        train(queue, queue.claim(), score)
    smaller = open_queue(storage, 2)
    assert [paused_at(trial) for trial in smaller.slots()] == [4, 4]


def test_what_was_begun_before_trials_paused_goes_to_its_end(storage: StudyStorage) -> None:
    before = open_queue(storage, 4, pruner="none")
    before.give_back(before.claim(), "stopped")
    queue = open_queue(storage, 4)
    assert [queue.claim().frozen.user_attrs["granted"] for _ in range(2)] == [STEPS, 4]
    assert queue.halving.spent(queue.slots()) == WHOLE + queue.halving.cost(0, 4)


def test_part_of_a_queue_keeps_what_is_left_for_the_rest(storage: StudyStorage) -> None:
    """A trial that waits is not sent on because this call has nothing better to do with its steps."""
    part = open_queue(storage, 6, stop_after=3)
    run(part, (score / 100 for score in range(99, 0, -1)).__next__)
    waiting, left = [paused_at(trial) for trial in part.slots()], 3 * WHOLE - part.halving.spent(part.slots())
    assert part.is_done(3) and 11 <= left < WHOLE and 4 in waiting, "enough to send one to the next rung"
    assert replace(part.halving, goes_further=False).next(part.slots(), []) is not None
    assert not open_queue(storage, 6).is_done(6)


def test_the_sampler_learns_from_those_that_wait(storage: StudyStorage) -> None:
    queue = open_queue(storage, 12)
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        train(queue, queue.claim(), score)
    seen = queue.load(queue.slots()[-1].number).get_trials(deepcopy=False)
    waiting = {trial.number for trial in queue.slots() if paused_at(trial) is not None}
    assert len(waiting) > 3 and {trial.number for trial in seen if trial.state == TrialState.PRUNED} == waiting
    stored = queue.load().get_trials(deepcopy=False)
    assert not any(trial.state == TrialState.PRUNED for trial in stored), "in the storage they wait"


def test_the_twin_of_a_paused_trial_is_told_its_score(storage: StudyStorage) -> None:
    queue = open_queue(storage, 4)
    first = queue.claim()
    queue.enter(first, {"canonical": "same", "title": "a"})
    train(queue, first, 0.5)
    second = queue.claim()
    twin = queue.enter(second, {"canonical": "same", "title": "a"})
    assert twin.number == first.number
    queue.credit(second, twin)
    told = queue.slots()[1]
    assert told.state == TrialState.PRUNED and told.intermediate_values == {4: 0.5}
    train(queue, queue.claim(), 0.1)
    train(queue, queue.claim(), 0.2)
    again = queue.claim()
    assert again.number == first.number, "one of three scored, not of four"
    assert queue.enter(again, {"canonical": "same", "title": "a"}) is None


def test_halving_as_in_the_paper() -> None:
    """Of nine at a rung three go on, of these one; the costs are those of the rungs."""
    halving = Halving((Rung(step=4, problems=8), Rung(step=12, problems=8)), 36, 9)
    assert FACTOR == 3 and halving.whole == 36 and [halving.after(step) for step in (0, 4, 12)] == [4, 12, 36]
    assert [halving.cost(*way) for way in ((0, 4), (4, 12), (12, 36), (0, 36))] == [4, 8, 24, 36]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.1, 1), (0.2, 2), (0.3, 3), (0.4, 4), (0.5, 5)], 1.0),
        ([(0.1, 5), (0.2, 4), (0.3, 3), (0.4, 2), (0.5, 1)], -1.0),
        ([(1, 1), (2, 2), (3, 3), (4, 5), (5, 4)], 0.9),
        ([(0.0, 1), (0.0, 2), (0.0, 3), (0.0, 4), (0.0, 5)], None),
        ([(0.1, 1), (0.2, 2)], None),
    ],
)
def test_agreement_is_spearmans(pairs: list[tuple[float, float]], expected: float | None) -> None:
    assert agreement(pairs) == (None if expected is None else pytest.approx(expected))


def test_rungs_are_written_as_fractions() -> None:
    search = {**small_config()["search"], "pruner": "asha", "rungs": ["1/9", "1 / 3"], "rung_decay": 0.25}
    config = parse_study(small_config(search=search, training={"steps": 90, "effective_batch": 8, "micro_batch": 8}))
    rungs = config.search.rungs_of(90, 16)
    assert [(rung.step, rung.decay_steps) for rung in rungs] == [(10, 3), (30, 8)]
    del search["rungs"]
    assert parse_study(small_config(search=search)).search.rungs == (1 / 3,)
    with pytest.raises(UserError, match="rungs"):
        parse_study(small_config(search={**search, "rungs": ["1/0"]}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"search": {"rungs": [36]}}, "search.rungs"),
        ({"space": {"training": {"steps": {"options": [8, 36]}}}}, "space.training.steps"),
    ],
)
def test_a_budget_of_steps_needs_rungs_and_equal_trials(changes: dict[str, Any], field: str) -> None:
    given = small_config(**{name: value for name, value in changes.items() if name != "search"})
    given["training"]["steps"] = STEPS
    given["search"] = {"trials": 4, "startup_trials": 0, "pruner": "asha"} | changes.get("search", {})
    with pytest.raises(UserError) as caught:
        parse_study(given)
    assert caught.value.field == field and "asha" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "pruner"),
    [
        ({}, "asha"),
        ({"space": {"training": {"steps": {"options": [8, 36]}}}}, "median"),
        ({"training": {"steps": 1, "effective_batch": 8, "micro_batch": 8}}, "none"),
        ({"evaluation": {"retention": {"text": "plain.txt", "role": "objective"}}}, "none"),
    ],
)
def test_trials_pause_by_default_where_they_can(changes: dict[str, Any], pruner: str) -> None:
    given = small_config(search={"trials": 4})
    for name, change in changes.items():
        given[name] = {**given[name], **change}
    assert parse_study(given).search.pruner == pruner


@pytest.mark.parametrize(("trials", "baselines", "pauses"), [(3, 2, False), (4, 2, True), (6, 6, False), (7, 6, True)])
def test_trials_pause_unless_a_study_draws_nothing_or_is_very_short(trials: int, baselines: int, pauses: bool) -> None:
    rates = [{"preset": "dft", "training": {"learning_rate": 0.001 * (index + 1)}} for index in range(baselines)]
    study = parse_study(small_config(search={"trials": trials}, baselines=rates))
    assert study.pauses == pauses and (Halving.of(study) is not None) == pauses


def test_a_study_whose_trials_do_not_pause_has_just_its_trials(storage: StudyStorage) -> None:
    queue = open_queue(storage, 3, rung_decay=0.0)
    run(queue, random.Random(1).random)
    assert queue.counts() == {"waiting": 0, "running": 0, "complete": 3, "pruned": 0, "fail": 0}


def test_a_checked_study_counts_the_scores_at_its_rungs() -> None:
    """Of 36 steps of 1 s and 16 problems of 0.1 s: 4 trials of 40 steps, and at most 32 scores of 8 problems."""
    given = small_config()
    given["training"]["steps"] = STEPS
    facts = {"worst_steps": {"sft": {"seconds": 1.0}}, "seconds_per_problem": 0.1}
    found = {}
    for pruner in ("none", "asha"):
        given["search"] = {
            "trials": 4,
            "startup_trials": 0,
            "pruner": pruner,
            "rungs": ["1/9", "1/3"],
            "rung_problems": 8,
            "rung_decay": 0.25,
        }
        found[pruner] = estimate_seconds(parse_study(given), facts)
    assert found["none"] == pytest.approx(4 * (36 + 1.6))
    assert found["asha"] == pytest.approx(4 * (36 + 1.6) * 40 / 36 + 32 * 0.8)
