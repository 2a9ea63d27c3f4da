"""The engine's end of the pipes: commands in, events out, one JSON object a line; and what asks it to stop."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..study.failures import heeded

Message = dict[str, Any]


class Channel:
    """Owns the process's standard output; whatever else is printed goes to standard error, the engine's log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._out.write("\n")  # ends a line that something has begun to print at its import
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._commands: queue.Queue[Message] = queue.Queue()
        self.stop = threading.Event()
        """Set when the running trial should stop at its next boundary."""
        self._leaving = threading.Event()
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Tell the supervisor; floats that are not finite are refused, they would not be JSON."""
        line = json.dumps({"type": kind, **fields}, allow_nan=False)
        with self._lock:
            self._out.write(line + "\n")
            self._out.flush()

    def next_command(self) -> Message:
        """The next command, waiting for it; `leave` once a signal has come."""
        return {"type": "leave"} if self._leaving.is_set() else self._commands.get()

    def begin(self) -> None:
        """A trial starts: what was asked of the one before is done."""
        self.stop.clear()
        if self._leaving.is_set():
            self.stop.set()

    def heed_signals(self) -> None:
        """Stop and leave when told so by a signal, and pass it on: the supervisor may not have got it."""
        on_stop_signal(self._leave)

    def _leave(self, name: str) -> None:
        self._leaving.set()
        self.stop.set()
        self._commands.put({"type": "leave"})
        self.send("signalled", name=name)

    def decision(self, number: int, step: int) -> Message:
        """The supervisor's word on a rung. It always answers, also when it has asked for a stop."""
        while True:
            message = self._commands.get()
            if message["type"] == "decision" and (message["number"], message["step"]) == (number, step):
                return message

    def _listen(self) -> None:
        """Commands arrive while a trial runs. Their end means that the supervisor is gone."""
        for line in sys.stdin:
            message = json.loads(line)
            if message["type"] == "stop":
                self.stop.set()
            else:
                self._commands.put(message)
        os._exit(0)


def on_stop_signal(told: Callable[[str], None]) -> None:
    """Have `told` called with the name of each signal that asks for a stop, in a thread: a handler may take no lock.

    SIGINT is ignored: Ctrl-C reaches an engine through its supervisor.
    """
    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def tell() -> None:
        while True:
            told(names.get())

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in heeded():
        signal.signal(each, lambda number, frame: names.put(signal.Signals(number).name))
    threading.Thread(target=tell, name="signals", daemon=True).start()


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process with its supervisor, even inside a long native call."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1  # <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
