"""Signals as something to wait on: the first asks for a stop at the next step, the same one again for a quick end.

Ctrl-C, and what ends a job from outside: SIGTERM, SIGHUP of a terminal that was closed, SIGUSR1 of SLURM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from ..study.failures import heeded

AGAIN_SECONDS = 0.5
"""Shells, `timeout` and schedulers send a signal twice in one moment; who sends it again later wants a quick end."""


class StopSignals:
    """While entered, signals are counted and wake a `select` on this. Inert outside the main thread."""

    def __init__(self) -> None:
        self.count = 0
        """0: go on; 1: stop at the next step; 2: at once."""
        self.name = ""
        """Of the signal that came first."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before: dict[signal.Signals, Any] = {}
        self._last: dict[int, float] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, *heeded())}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self._read)
        os.close(self._write)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.count:
            self.count, self.name = 1, signal.Signals(number).name
        elif now - self._last.get(number, now) > AGAIN_SECONDS:
            self.count = 2
        self._last.setdefault(number, now)
        with contextlib.suppress(BlockingIOError):  # nobody has read the earlier ones yet
            os.write(self._write, b"!")

    def fileno(self) -> int:
        return self._read

    def drain(self) -> None:
        os.read(self._read, 64)
