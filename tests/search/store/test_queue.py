"""Slots are claimed once, given back as themselves, and never lost: on a real SQLite file, from several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from small_study import small_config

from qtarget.search.store.queue import Claim, LeaseLostError, Queue, Slot, Verdict
from qtarget.search.store.storage import open_storage, sqlite_url
from qtarget.search.study.config_file import parse_study

TESTS = Path(__file__).parents[2]


def open_queue(folder: Path, trials: int, first: list[Slot] | None = None, **changes: Any) -> Queue:
    storage = open_storage(sqlite_url(folder / "study.db"))
    optuna.create_study(study_name="small", storage=storage.backend, direction="maximize", load_if_exists=True)
    queue = Queue(parse_study(small_config(**changes)), storage)
    queue.fill(first or [], trials)
    return queue


def test_slots_are_claimed_in_order_baselines_first(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 3, [Slot({"x": 0.25}, {"baseline": "sft"})])
    claims = [queue.claim() for _ in range(4)]
    assert [claim.number for claim in claims[:3]] == [0, 1, 2] and claims[3] is None
    assert claims[0].attributes["baseline"] == "sft"
    assert claims[0].trial.suggest_float("x", 0.0, 1.0) == 0.25


def test_a_slot_that_is_given_back_is_the_same_trial_again(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 2)
    claim = queue.claim()
    drawn = claim.trial.suggest_float("x", 0.0, 1.0)
    queue.report(claim, 4, 0.5)
    queue.note(claim, title="a")
    queue.give_back(claim, "stopped")
    assert queue.counts() == {"waiting": 2, "running": 0, "complete": 0, "pruned": 0, "fail": 0}
    again = queue.claim()
    assert (again.number, again.attempt) == (claim.number, 2)
    assert again.trial.suggest_float("x", 0.0, 1.0) == drawn
    assert queue.rungs(again) == {4: 0.5} and again.attributes["title"] == "a"
    assert [link["why"] for link in again.attributes["chain"]] == ["stopped"]
    assert "lease" not in again.attributes["chain"][0]


def test_who_was_thought_dead_cannot_tell(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 1)
    slow = queue.claim()
    queue.give_back(slow, "lease expired")
    quick = queue.claim()
    for act in (lambda: queue.finish(slow, Verdict(TrialState.COMPLETE, 0.9)), lambda: queue.renew(slow)):
        with pytest.raises(LeaseLostError):
            act()
    queue.finish(quick, Verdict(TrialState.COMPLETE, 0.1))
    assert queue.slots()[0].value == 0.1
    with pytest.raises(LeaseLostError):
        queue.finish(quick, Verdict(TrialState.COMPLETE, 0.2))


@pytest.mark.slow
def test_a_reap_takes_dead_processes_at_once_and_spares_living_ones(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 2)
    alive = queue.claim()
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_queue import open_queue\n"
        "print(open_queue(Path(sys.argv[1]), 2).claim().number, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), folder],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL and done.stdout.strip() == "1", done.stderr
    assert queue.reap() == [1]
    assert queue.counts()["running"] == 1 and queue.counts()["waiting"] == 1
    queue.renew(alive)
    assert [link["why"] for link in queue.claim().attributes["chain"]] == ["supervisor lost"]


def test_the_sampler_of_a_trial_depends_on_its_number_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = open_queue(tmp_path / "a", 2), open_queue(tmp_path / "b", 2)
    one = [first.claim().trial.suggest_float("x", 0, 1) for _ in range(2)]
    skipped = [second.claim(), second.claim()]
    assert skipped[1].trial.suggest_float("x", 0, 1) == one[1]
    assert one[0] != one[1]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_an_attempt_that_died_while_it_drew_leaves_no_trace(sampler: str, tmp_path: Path) -> None:
    """The second generator would have given the second knob what the first one got."""

    def draw(queue: Queue, names: str) -> tuple[Claim, dict[str, float]]:
        claim = queue.claim()
        return claim, {name: claim.trial.suggest_float(name, 0.0, 1.0) for name in names}

    search = {**small_config()["search"], "sampler": sampler}
    values = []
    for died in (False, True):
        (folder := tmp_path / f"died-{died}").mkdir()
        queue = open_queue(folder, 4, search=search)
        for score in (0.1, 0.5):
            queue.finish(draw(queue, "xyz")[0], Verdict(TrialState.COMPLETE, score))
        if died:
            queue.give_back(draw(queue, "x")[0], "supervisor lost")
        claim, drawn = draw(queue, "xyz")
        queue.note(claim, canonical="a")
        assert drawn == claim.trial.params == claim.frozen.params
        queue.give_back(claim, "stopped")
        assert queue.claim().frozen.params == drawn, "what is whole stays"
        values.append(drawn)
    assert values[0] == values[1]


def test_a_smaller_budget_takes_waiting_slots_back_and_a_larger_one_adds(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 5)
    claim = queue.claim()
    queue.fill([], 3)
    assert (len(queue.slots()), queue.counts()["waiting"]) == (3, 2)
    queue.finish(claim, Verdict(TrialState.COMPLETE, 0.5))
    queue.fill([], 1)
    assert queue.is_done(1)
    queue.fill([], 4)
    assert (len(queue.slots()), queue.counts()["waiting"], queue.counts()["complete"]) == (4, 3, 1)
    assert queue.counts()["fail"] == 0


def test_a_baseline_is_never_pruned(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 5, [Slot()] * 3 + [Slot({}, {"baseline": "dft"})])
    for score in (0.8, 0.9, 0.85):
        claim = queue.claim()
        queue.report(claim, 4, score)
        queue.finish(claim, Verdict(TrialState.COMPLETE, score))
    assert queue.report(queue.claim(), 4, 0.0) is False
    assert queue.report(queue.claim(), 4, 0.0) is True


@pytest.mark.slow
def test_six_processes_on_one_file_do_each_slot_once(tmp_path: Path) -> None:
    open_queue(tmp_path, 18)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_queue import open_queue, drain; drain(open_queue(Path(sys.argv[1]), 18))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(6)]
    numbers = [int(line) for worker in workers for line in worker.communicate()[0].split()]
    assert [worker.returncode for worker in workers] == [0] * 6
    assert sorted(numbers) == list(range(18))
    queue = open_queue(tmp_path, 18)
    assert queue.is_done(18) and all(trial.user_attrs["attempts"] == 1 for trial in queue.slots())


def drain(queue: Queue) -> None:
    """Claim and finish until nothing is left; prints the numbers."""
    while (claim := queue.claim()) is not None:
        claim.trial.suggest_float("x", 0.0, 1.0)
        time.sleep(0.01)
        queue.finish(claim, Verdict(TrialState.COMPLETE, 0.5))
        print(claim.number, flush=True)


def test_a_twin_of_a_running_trial_stands_behind_it_and_takes_its_outcome(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, 3)
    first, second = queue.claim(), queue.claim()
    assert queue.enter(first, {"canonical": "same"}) is None
    twin = queue.enter(second, {"canonical": "same"})
    assert (twin.number, twin.state) == (0, TrialState.RUNNING)
    queue.stand_behind(second, twin.number)
    other = queue.claim()
    assert other.number == 2 and queue.claim() is None, "the twin is not claimed while the first runs"
    queue.finish(first, Verdict(TrialState.COMPLETE, 0.7))
    again = queue.claim()
    assert (again.number, again.attempt) == (1, 1) and "chain" not in again.attributes
    finished = queue.enter(again, {"canonical": "same"})
    assert finished.state == TrialState.COMPLETE
    queue.credit(again, finished)
    assert queue.slots()[1].value == 0.7 and queue.slots()[1].user_attrs["same_as"] == 0


@pytest.mark.parametrize("how", ["given back", "failed"])
def test_a_twin_goes_on_itself_when_the_first_does_not_finish(tmp_path: Path, how: str) -> None:
    queue = open_queue(tmp_path, 2)
    first, second = queue.claim(), queue.claim()
    queue.enter(first, {"canonical": "same"})
    queue.stand_behind(second, queue.enter(second, {"canonical": "same"}).number)
    if how == "given back":
        queue.give_back(first, "stopped")
        first = queue.claim()
        assert first.number == 0 and queue.claim() is None, "the same one goes on, and the other waits again"
    queue.finish(first, Verdict(TrialState.FAIL))
    again = queue.claim()
    assert again.number == 1 and queue.enter(again, {"canonical": "same"}) is None
