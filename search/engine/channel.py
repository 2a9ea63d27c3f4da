"""The engine's end of the pipes: commands in, events out, one JSON object a line."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

Message = dict[str, Any]


class Channel:
    """Owns the process's standard output; whatever else is printed goes to standard error, the engine's log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._commands: queue.Queue[Message] = queue.Queue()
        self.stop = threading.Event()
        """Set when the running trial should stop at its next boundary."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Tell the supervisor; floats that are not finite are refused, they would not be JSON."""
        line = json.dumps({"type": kind, **fields}, allow_nan=False)
        with self._lock:
            self._out.write(line + "\n")
            self._out.flush()

    def next_command(self) -> Message:
        """The next command, waiting for it."""
        return self._commands.get()

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


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process with its supervisor, even inside a long native call."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    pr_set_pdeathsig = 1  # <sys/prctl.h>
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
