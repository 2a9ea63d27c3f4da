"""A real model whose trials pause and go on, also when an engine is killed on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_study import Recorder
from small_study import small_config, write_small_study

from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study

pytestmark = pytest.mark.slow

STEPS, RUNGS = 18, (2, 6)


class Kills(Recorder):
    """SIGKILL to the engine at the first score of some trials' rungs, before anything is decided there."""

    def __init__(self, *places: tuple[int, int]) -> None:
        super().__init__()
        self.left = set(places)

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if type(event).__name__ == "RungScored" and (event.number, event.step) in self.left:
            self.left.discard((event.number, event.step))
            for child in psutil.Process().children():
                if "engine" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)


def test_killed_paused_and_promoted_each_step_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the numbers are those of one go is shown by `tests/trainers/loop/test_look.py`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kills = Kills((1, 2))
    search = {**small_config()["search"], "trials": 4, "sampler": "random", "repeats": 0, "rivals": 0.0}
    training = {**small_config()["training"], "steps": STEPS}
    search |= {"pruner": "asha", "rungs": list(RUNGS), "rung_decay": 0.25}
    config = load_study(write_small_study(tmp_path, search=search, training=training, baselines=["sft"],
                                          tracking={"uri": "none"}))  # fmt: skip
    assert run_study(config, [kills]).state == "finished"
    records = load_history(config)
    assert not kills.left and records[1].attempts == 2
    assert {record.state for record in records} == {"complete", "paused"}
    for record in records:
        steps = [json.loads(line)["step"] for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, record.granted + 1)), "none is done twice, and none of a look's is counted"
        assert set(record.rungs) == {rung for rung in RUNGS if rung <= record.granted}
        assert (record.folder / "result.json").exists() == (record.state == "complete")
        if record.state == "paused":
            assert record.score == record.rungs[record.granted]
    promoted = [record for record in records if record.state == "complete" and not record.baseline]
    assert all(json.loads((record.folder / "result.json").read_text())["steps"] == STEPS for record in promoted)
