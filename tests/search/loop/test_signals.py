"""What ends a job from outside, sent to the supervisor, to its engine, or to both: the trial goes back, uncounted."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.launchers.process import EngineProcess
from qtarget.search.loop import signals as module
from qtarget.search.loop.signals import StopSignals
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.failures import STOP_SIGNALS

ENGINE = (
    "import sys; from qtarget.search.engine.channel import Channel\n"
    "channel = Channel(); channel.heed_signals(); channel.begin(); channel.send('ready')\n"
    "stopped = channel.stop.wait(60); channel.begin()\n"
    "channel.send('stopped', asked=channel.stop.is_set(), then=channel.next_command()['type'])"
)


class Send(Recorder):
    """Sends a signal when trial 1 takes a step, to this process or to its engine."""

    def __init__(self, number: int, to_engine: bool) -> None:
        super().__init__()
        self.number, self.to_engine, self.engine = number, to_engine, 0

    def launch(self, folder: Path, index: int) -> EngineProcess:
        engine = scripted(folder, index)
        self.engine = engine.pid
        return engine

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if type(event).__name__ == "StepDone" and event.number == 1:
            os.kill(self.engine if self.to_engine else os.getpid(), self.number)


@pytest.fixture(autouse=True)
def heard_hangups() -> Iterator[None]:
    """A runner under nohup ignores SIGHUP, and so does all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "to_engine"), [(signal.SIGTERM, True), (signal.SIGHUP, False)])
@pytest.mark.slow
def test_a_signal_stops_the_study_whoever_gets_it(scripted_study, number: int, to_engine: bool) -> None:
    config = scripted_study({"1": ["wait", "finish"]}, limits={**small_config()["limits"], "retries": 0})
    heard = Send(number, to_engine)
    summary = run_study(config, [heard], launch=heard.launch)
    assert (summary.state, summary.ended) == ("stopped", "signal")
    assert [record.state for record in load_history(config)] == ["complete", "waiting", "waiting", "waiting"]
    assert heard.of("TrialEnded")[-1].state == "interrupted"
    assert run_study(config, launch=scripted).counts["complete"] == 4, "that was no crash of the trial"


@pytest.mark.slow
def test_an_engine_stops_and_leaves_and_passes_the_signal_on() -> None:
    for number in STOP_SIGNALS:
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", ENGINE], stdin=pipe, stdout=pipe, text=True) as engine:
            assert engine.stdout is not None
            assert engine.stdout.readline() == "\n" and json.loads(engine.stdout.readline())["type"] == "ready"
            engine.send_signal(number)
            said = [json.loads(engine.stdout.readline()) for _ in range(2)]
        told = sorted(said, key=lambda message: message["type"])
        assert told[0] == {"type": "signalled", "name": signal.Signals(number).name}
        assert told[1] == {"type": "stopped", "asked": True, "then": "leave"}


def test_what_comes_twice_in_a_moment_is_one_signal_and_later_it_is_urgent(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)  # a closed terminal, too
        assert select.select([signals], [], [], 5)[0] == [signals]
        assert (signals.count, signals.name) == (1, "SIGTERM")
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.count == 1, "another one is not the same one again"
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.count == 2


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)
