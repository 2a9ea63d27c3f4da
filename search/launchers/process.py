"""What every engine is to its supervisor, and an engine in one process of this host.

Supervisor and engine talk in JSON lines over pipes; what the engine prints otherwise goes to engine-<index>.log in the
study's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ..study.failures import STOP_SIGNALS

Message = dict[str, Any]
Cause = tuple[Literal["oom", "crash", "stopped"], str]
PYTHON = (sys.executable, "-P")
"""Without the current folder among what can be imported: a `random.py` there is not Python's."""
SAFE = {"PYTHONSAFEPATH": "1"}
"""The same, as an environment that the processes it starts inherit."""


class RunningEngine(Protocol):
    """An engine as its supervisor sees it, wherever it runs."""

    def fileno(self) -> int:
        """The descriptor to wait on for messages."""
        ...

    def send(self, command: Message) -> None:
        """Send one command; a dead engine is noticed by `dead`, not here."""
        ...

    def receive(self) -> Iterator[Message]:
        """Messages that have arrived; does not wait."""
        ...

    @property
    def dead(self) -> bool: ...

    def cause_of_death(self) -> Cause:
        """(`oom`, `crash` or, by a signal that asks for an end, `stopped`; sentence) of a dead engine."""
        ...

    def close(self, patience: float = 10.0) -> None:
        """End the engine: it leaves when its commands end; whatever stays longer is killed, its children too."""
        ...

    def kill(self) -> None: ...

    def log_tail(self, lines: int = 20) -> str: ...


Launch = Callable[[Path, int], RunningEngine]
"""Starts engine number `index` of the study in a folder."""


class EngineProcess:
    """An engine in one process of this host. Needs POSIX pipes."""

    def __init__(
        self,
        study_folder: Path,
        index: int,
        environment: Mapping[str, str] | None = None,
        module: str = "qtarget.search.engine.main",
    ) -> None:
        self.log = study_folder / f"engine-{index}.log"
        self._kernel_kills = _kernel_kills()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PYTHON, "-m", module, str(study_folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **SAFE, "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
                | dict(environment or {}),
                # Ctrl-C in the terminal is for the supervisor alone: it stops the engine at a step boundary
                start_new_session=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._commands, self._events = self._process.stdin, self._process.stdout
        os.set_blocking(self._events.fileno(), False)
        self._rest = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._events.fileno()

    def send(self, command: Message) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._commands.write(json.dumps(command).encode() + b"\n")
            self._commands.flush()

    def receive(self) -> Iterator[Message]:
        while chunk := self._events.read(1 << 16):
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        yield from (message for line in lines if (message := parse_message(line)) is not None)

    @property
    def dead(self) -> bool:
        return self.exit_code is not None

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative: the signal that ended it."""
        return self._process.poll()

    def cause_of_death(self) -> Cause:
        code = self._process.wait()
        if code == -signal.SIGKILL and _kernel_kills() > self._kernel_kills:
            return "oom", "the kernel's OOM killer ended the engine"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if -code in STOP_SIGNALS:
            return "stopped", f"the engine was told to stop ({name})"
        return "crash", f"the engine died ({name}); see {self.log.name}"

    def close(self, patience: float = 10.0) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        self._events.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def parse_message(line: bytes) -> Message | None:
    """One line of a process that speaks JSON objects; None for what a library has printed among them."""
    if not line.startswith(b"{"):
        return None
    try:
        message: Message = json.loads(line)
    except ValueError:
        return None
    return message if "type" in message else None


def _kernel_kills() -> int:
    """How many processes of this machine the OOM killer has ended since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text("utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
