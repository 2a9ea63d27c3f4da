"""The engine's pipe and its reading of failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_study import TESTS
from small_study import small_config

from qtarget.search.launchers.process import EngineProcess
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history

CHATTER = """
import os, sys, threading
from qtarget.search.engine.channel import Channel
channel = Channel()
print("stray print"); sys.stdout.flush(); os.system("echo stray child"); os.write(1, b"stray native\\n")
channel.send("ready", value=0.1)
command = channel.next_command()
channel.send("step", got=command["n"], stopped=channel.stop.wait(10))
threading.Event().wait()
"""


def test_stray_output_does_not_reach_the_pipe_and_the_end_of_commands_ends_the_engine() -> None:
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen([sys.executable, "-c", CHATTER], text=True, **pipes) as engine:
        assert engine.stdout.readline() == "\n", "whatever stands in the pipe before is cut off"
        assert json.loads(engine.stdout.readline()) == {"type": "ready", "value": 0.1}
        engine.stdin.write('{"type": "run", "n": 7}\n{"type": "stop"}\n')
        engine.stdin.flush()
        assert json.loads(engine.stdout.readline()) == {"type": "step", "got": 7, "stopped": True}
        rest, log = engine.communicate(timeout=250)
    assert rest == "" and log.count("stray") == 3
    assert engine.returncode == 0


def allocate_too_much() -> None:
    import torch

    torch.empty(2**60)


def write_to_a_full_disk() -> None:
    with open("/dev/full", "w") as file:
        file.write("x")


def diverge() -> None:
    from qtarget.trainers.loop.sft import DivergedError

    raise DivergedError(3, float("nan"), 1.0)


def misconfigure() -> None:
    from qtarget.spaces.errors import UserError

    raise UserError("`path` must exist", field="data.path")


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (allocate_too_much, "oom", "allocate"),
        (lambda: bytearray(2**62), "oom", "MemoryError"),
        (write_to_a_full_disk, "disk", "No space left"),
        (diverge, "diverged", "step 3"),
        (misconfigure, "user", "`path` must exist"),
        (lambda: {}["x"], "bug", "KeyError"),
    ],
)
def test_failures_are_told_apart_by_what_really_happens(act: Callable[[], None], kind: str, said: str) -> None:
    from qtarget.search.engine.main import classify

    with pytest.raises(Exception) as raised:  # which one is the question
        act()
    failure = classify(raised.value)
    assert failure.kind == kind and said in failure.message
    assert failure.field == ("data.path" if kind == "user" else None)
    if kind == "bug":
        assert "Traceback" in failure.traceback and "test_main.py" in failure.traceback


GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.skipif(not os.access(GROUPS, os.W_OK), reason="no memory control group may be made here")
def test_the_kernels_oom_killer_is_told_from_other_deaths(scripted_study) -> None:
    """The engine eats past the limit of its control group; the trial goes on at half the micro-batch."""
    group = GROUPS / f"qtarget-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(64 << 20))
        environment = {"PYTHONPATH": str(TESTS), "CONTROL_GROUP": str(group)}

        def launch(folder: Path, index: int) -> EngineProcess:
            return EngineProcess(folder, index, environment, module="hungry_engine")

        config = scripted_study(search={**small_config()["search"], "trials": 1})
        run_study(config, launch=launch)
    finally:
        group.rmdir()
    (record,) = load_history(config)
    assert [link["why"] for link in record.chain] == ["oom"]
    assert (record.folder / "micro_batches").read_text().split() == ["4"]
