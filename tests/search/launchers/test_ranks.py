"""Engines of two ranks in real studies: the numbers of one rank, whatever happens to a rank on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_study import TESTS, Recorder
from small_study import small_config, write_small_study

from qtarget.search.launchers.local import device_group, local_launch
from qtarget.search.launchers.ranks import EngineRanks
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config_file import load_study, parse_study
from qtarget.search.study.failures import LOST_CONTACT
from qtarget.spaces.errors import UserError

CHANGES: dict[str, Any] = {
    "baselines": ["sft", "kd"],
    "search": {**small_config()["search"], "trials": 3},
    "tracking": {"uri": "none"},
}


class At(Recorder):
    """Does something once, when a trial reports a step."""

    def __init__(self, **acts: Callable[[], None]) -> None:
        """Names are `trial_<number>_step_<step>`."""
        super().__init__()
        self._acts = acts

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if type(event).__name__ == "StepDone":
            self._acts.pop(f"trial_{event.number}_step_{event.step}", lambda: None)()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill_rank_1() -> None:
    os.kill(next(process.pid for process in ranks() if process.environ()["RANK"] == "1"), signal.SIGKILL)


def ranks() -> list[psutil.Process]:
    """Rank processes below this one."""
    return [p for p in psutil.Process().children(recursive=True) if "search.engine.ranks" in " ".join(p.cmdline())]


def losses(record: TrialRecord) -> list[float]:
    lines = (record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_two_ranks_give_the_trials_of_one_through_a_kill_and_an_interrupt(tmp_path: Path) -> None:
    alone = load_study(write_small_study(tmp_path / "alone", **CHANGES))
    assert run_study(alone).state == "finished"
    heard = At(trial_0_step_5=kill_rank_1, trial_1_step_3=interrupt)
    for strategy, state in (("fsdp", "stopped"), ("ddp", "finished")):  # which may change on the way
        changes = CHANGES | {"engine": {"ranks": 2, "strategy": strategy}}
        config = load_study(write_small_study(tmp_path / "ranks", **changes))
        assert run_study(config, [heard]).state == state
        assert ranks() == [], "no rank outlives its study"
    found, expected = load_history(config), load_history(alone)
    assert [[link["why"] for link in record.chain] for record in found] == [["crash"], ["stopped"], []]
    for record, other in zip(found, expected, strict=True):
        assert (record.state, record.score, record.verdicts) == (other.state, other.score, other.verdicts)
        assert record.parameters == other.parameters
        assert losses(record) == pytest.approx(losses(other), rel=1e-4)


def test_an_effective_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"effective_batch. must be a multiple of .engine.ranks"):
        parse_study(small_config(engine={"ranks": 3}))


def test_vllm_which_needs_its_process_to_itself_is_refused_on_ranks() -> None:
    evaluation = {**small_config()["evaluation"], "backend": "vllm"}
    assert parse_study(small_config(evaluation=evaluation)).engine.ranks == 1
    with pytest.raises(UserError, match=r"another than vllm with .engine.ranks. above 1, but got 2 ranks"):
        parse_study(small_config(evaluation=evaluation, engine={"ranks": 2}))


RANK = """
import json, os, sys
rank = os.environ["RANK"]
say = lambda kind, **fields: print(json.dumps({"type": kind, **fields}), flush=True)
script = json.load(open(sys.argv[1] + "/ranks.json"))[rank]
for kind in script["say"]:
    say(kind, failure={"kind": "oom", "message": rank}) if kind == "failed" else say(kind)
if script["exit"] is not None:
    os._exit(script["exit"])
sys.stdin.read()
"""


def scripted_ranks(folder: Path, *scripts: dict[str, Any]) -> EngineRanks:
    """Ranks that each say something and leave, or wait for the end."""
    (folder / "ranks.json").write_text(json.dumps({str(rank): script for rank, script in enumerate(scripts)}))
    (folder / "scripted_rank.py").write_text(RANK)
    environment = {"PYTHONPATH": f"{folder}{os.pathsep}{TESTS}"}
    return EngineRanks(folder, 0, len(scripts), environment, module="scripted_rank")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_failure_of_any_rank_is_that_of_the_engine(tmp_path: Path) -> None:
    engine = scripted_ranks(tmp_path, {"say": ["ready"], "exit": LOST_CONTACT}, {"say": ["failed"], "exit": 1})
    wait_for(lambda: all(not psutil.pid_exists(pid) or _is_over(pid) for pid in engine.pids))
    assert [message["type"] for message in engine.receive()] == ["ready", "failed"]
    assert list(engine.receive()) == []
    assert engine.dead and engine.cause_of_death() == (
        "crash",
        "rank 1: the engine died (exit status 1); see engine-0.log",
    )
    engine.kill()
    engine.close()


def test_a_failure_of_all_ranks_is_one(tmp_path: Path) -> None:
    both = {"say": ["failed"], "exit": 1}
    engine = scripted_ranks(tmp_path, both, both)
    wait_for(lambda: all(_is_over(pid) for pid in engine.pids))
    assert [message["failure"]["message"] for message in engine.receive()] == ["0"]
    engine.close()


def test_ranks_leave_together(tmp_path: Path) -> None:
    engine = scripted_ranks(tmp_path, {"say": [], "exit": None}, {"say": [], "exit": None})
    assert not engine.dead
    engine.close()
    assert engine.dead and [_is_over(pid) for pid in engine.pids] == [True, True]


def _is_over(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("devices", "index", "size", "expected"),
    [("0,1,2,3", 1, 2, "2,3"), ("0,1,2", 1, 2, "0,1"), ("a,b", 3, 1, "b"), ("", 0, 1, None)],
)
def test_each_engine_has_its_own_devices_while_there_are_enough(devices, index, size, expected) -> None:
    named = [name for name in devices.split(",") if name]
    assert device_group(named, index, size).get("CUDA_VISIBLE_DEVICES") == expected


def test_more_ranks_than_devices_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="at most the number of devices"):
        local_launch(4)
