"""Where engines run: processes of this host, one a device group. With launcher_ranks and launcher_ray all that knows.

Supervisor and engine talk in JSON lines over pipes; what the engine prints otherwise goes to engine-<index>.log in the
study's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from ..spaces.errors import UserError
from ..spaces.settings import Settings

Message = dict[str, Any]
Cause = tuple[Literal["oom", "crash"], str]


class EngineSettings(Settings):
    """How many devices one trial takes."""

    ranks: Annotated[int, Field(ge=1)] = 1
    """Processes that train one model together, each on its own device; on the CPU where there is none."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every rank holds the whole model. fsdp: each holds a share of weights, gradients and AdamW's state."""


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
        """(`oom` or `crash`, sentence) of a dead engine."""
        ...

    def close(self, patience: float = 10.0) -> None:
        """End the engine: it leaves when its commands end; whatever stays longer is killed, its children too."""
        ...

    def kill(self) -> None: ...

    def log_tail(self, lines: int = 20) -> str: ...


Launch = Callable[[Path, int], RunningEngine]
"""Starts engine number `index` of the study in a folder."""


def local_launch(ranks: int = 1) -> Launch:
    """Starts engines of `ranks` processes on this host, each engine on its own devices where there are enough.

    Raises UserError when one engine needs more devices than there are.
    """
    devices = visible_devices()
    if ranks > 1 and 0 < len(devices) < ranks:
        raise UserError(
            f"`engine.ranks` must be at most the number of devices, but got {ranks}, and this host has {len(devices)}; "
            "lower it",
            field="engine.ranks",
        )

    def launch(folder: Path, index: int) -> RunningEngine:
        environment = device_group(devices, index, ranks)
        if ranks == 1:
            return EngineProcess(folder, index, environment)
        from .launcher_ranks import EngineRanks

        return EngineRanks(folder, index, ranks, environment)

    return launch


class Cluster(Protocol):
    """Where engines can run beside this host."""

    def launch(self, ranks: int) -> Launch: ...

    def room(self, ranks: int) -> int:
        """How many engines of `ranks` devices each fit."""
        ...


_CLUSTER: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Inside, engines run on the Ray cluster at an address; on this host where it is None. Raises UserError."""
    if address is None:
        yield
        return
    from .launcher_ray import RayCluster

    cluster = RayCluster(address)
    token = _CLUSTER.set(cluster)
    try:
        yield
    finally:
        _CLUSTER.reset(token)
        cluster.close()


def engines(ranks: int, workers: int) -> int:
    """How many engines of `ranks` processes run at once: `workers` here, at least as many as fit on a cluster.

    More than fit wait for nodes to come.
    """
    cluster = _CLUSTER.get()
    return workers if cluster is None else max(workers, cluster.room(ranks))


def place(ranks: int, workers: int) -> tuple[Launch, int]:
    """(how engines of `ranks` processes are started, how many of them)."""
    cluster = _CLUSTER.get()
    launch = local_launch(ranks) if cluster is None else cluster.launch(ranks)
    return launch, engines(ranks, workers)


def visible_devices() -> list[str]:
    """Names of the NVIDIA devices that engines may use; empty where there are none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, _ in enumerate(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE))]


def device_group(devices: list[str], index: int, size: int) -> dict[str, str]:
    """Environment of engine `index` on its `size` devices; groups are shared when there are more engines."""
    groups = len(devices) // size
    if groups == 0:
        return {}
    first = index % groups * size
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[first : first + size])}


class EngineProcess:
    """An engine in one process of this host. Needs POSIX pipes."""

    def __init__(
        self,
        study_folder: Path,
        index: int,
        environment: Mapping[str, str] | None = None,
        module: str = "qtarget.search.engine",
    ) -> None:
        self.log = study_folder / f"engine-{index}.log"
        self._kernel_kills = _kernel_kills()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(study_folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **(environment or {})},
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
        for line in lines:
            yield json.loads(line)

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


def _kernel_kills() -> int:
    """How many processes of this machine the OOM killer has ended since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text("utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
