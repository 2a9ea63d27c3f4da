"""Engines on the nodes of a Ray cluster (extra `ray`): one a GPU, or one a node where no node has any.

An actor on the node starts the engine as `launcher_local` does and passes its lines on. The loss of a node or an actor
is the death of its engine, so the trial goes on elsewhere; an engine that no node has room for gives its trial back and
waits.
"""

from __future__ import annotations

import os
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ... import __version__
from ...spaces.errors import UserError
from ..study.failures import Failure
from ..study.files import write_atomic
from .local import local_launch
from .process import Cause, Launch, Message

MARKER = ".seen-by-all-nodes"
"""File in the study's folder by which a node shows that it sees the same folder."""
MARKER_SECONDS = 30.0
"""How long a network file system may take to show it."""
POLL_SECONDS = 1.0
PLACE_SECONDS = 5.0
"""An engine that has found no room for so long says so, and again after each such time."""
HOST_SECONDS = 10.0
"""How long an actor may take to answer when it is to end."""
CARRIED = ("HF_", "TRANSFORMERS_", "OMP_NUM_THREADS")
"""Variables of this environment, by the start of their names, that engines on other nodes get too."""


LocalLaunch = Callable[[int], Launch]
"""From the ranks of an engine to the way a node starts it."""


class Host:
    """The actor on a node: owns one engine and passes lines on."""

    def __init__(
        self, folder: str, index: int, ranks: int, start: LocalLaunch, mark: str, environment: Mapping[str, str]
    ) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's own guess
        os.environ.update(environment)
        self._refused = not_as_here(Path(folder), mark)
        if self._refused is None:
            try:
                self._engine = start(ranks)(Path(folder), index)
            except UserError as error:
                self._refused = str(error)

    def is_here(self) -> bool:
        """Answers once the actor runs."""
        return True

    def receive(self) -> tuple[list[Message], Cause | None]:
        """What the engine has said, waiting a moment for it, and what it died of."""
        if self._refused is not None:
            failure = Failure(kind="user", message=self._refused, field="folder")
            return [{"type": "failed", "failure": failure.model_dump()}], ("crash", self._refused)
        select.select([self._engine], [], [], POLL_SECONDS)
        dead = self._engine.dead  # asked first: whatever it said before is still in the pipe
        # a signal to one node's engine ends that engine, and not the study
        messages = [message for message in self._engine.receive() if message["type"] != "signalled"]
        cause = self._engine.cause_of_death() if dead else None
        return messages, ("crash", cause[1]) if cause is not None and cause[0] == "stopped" else cause

    def send(self, command: Message) -> None:
        self._engine.send(command)

    def close(self, patience: float) -> None:
        if self._refused is None:
            self._engine.close(patience)


def not_as_here(folder: Path, mark: str) -> str | None:
    """Why a node cannot work on a study: another version, or another folder. None: it can."""
    version, _, _ = mark.partition(" ")
    if version != __version__:
        return (
            f"all nodes must run the same version, but {os.uname().nodename} has qtarget {__version__} and the study "
            f"is run by {version}; install that version there"
        )
    deadline = time.monotonic() + MARKER_SECONDS
    while _read(folder / MARKER) != mark:
        if time.monotonic() > deadline:
            return (
                f"the study's folder must lie on a file system that all nodes share, but {os.uname().nodename} does "
                f"not see what was just written to {folder}; move the study, or set `folder`"
            )
        time.sleep(0.2)
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except OSError:
        return None


class RayEngine:
    """An engine on some node as its supervisor sees it. A thread waits for what its actor passes on."""

    def __init__(self, ray: Any, make_host: Callable[[], Any], log: Path) -> None:
        self._ray, self._make_host, self._host, self.log = ray, make_host, make_host(), log
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._messages: deque[Message] = deque()
        self._death: Cause | None = None
        self._placed = False
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)
        self._thread = threading.Thread(target=self._relay, name="ray engine", daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        cause: Cause | None = None
        try:
            self._wait_for_place()
            while cause is None:
                answer = self._host.receive.options(concurrency_group="events").remote()
                messages, cause = self._ray.get(answer)
                self._pass_on(messages)
        except Exception as error:  # whatever Ray raises: this actor will not answer any more
            cause = ("crash", f"its node or its actor is gone: {_in_one_line(error)}")
            if "No module named 'qtarget'" in str(error):
                failure = Failure(kind="user", message="every node must have qtarget installed, but one has not")
                self._pass_on([{"type": "failed", "failure": failure.model_dump()}])
        self._death = cause
        os.write(self._wake, b".")

    def _wait_for_place(self) -> None:
        """Until the actor runs. One that Ray has given up before it ran is asked for again."""
        while not self._placed:
            here = self._host.is_here.options(concurrency_group="events").remote()
            while not self._ray.wait([here], timeout=PLACE_SECONDS)[0]:
                self._pass_on([{"type": "unplaced"}])
            try:
                self._placed = self._ray.get(here)
            except self._ray.exceptions.RayActorError as error:
                if "never ran" not in str(error):
                    raise
                self._ask_again()

    def _ask_again(self) -> None:
        self._ending.wait(PLACE_SECONDS)
        with self._lock:
            if self._ending.is_set():
                raise RuntimeError("it is not needed any more")
            self._host = self._make_host()
        self._pass_on([{"type": "unplaced"}])

    def _pass_on(self, messages: list[Message]) -> None:
        if messages:
            self._messages.extend(messages)
            os.write(self._wake, b".")

    def fileno(self) -> int:
        return self._awake

    def send(self, command: Message) -> None:
        self._host.send.options(concurrency_group="commands").remote(command)

    def receive(self) -> Iterator[Message]:
        try:
            while os.read(self._awake, 1 << 12):
                pass
        except BlockingIOError:
            pass
        while self._messages:
            yield self._messages.popleft()

    @property
    def dead(self) -> bool:
        return self._death is not None

    def cause_of_death(self) -> Cause:
        assert self._death is not None
        return self._death

    def close(self, patience: float = 10.0) -> None:
        """The engine leaves, or is killed with its children; then its actor goes."""
        self._end(patience)
        self._thread.join(HOST_SECONDS)
        if not self._thread.is_alive():
            os.close(self._wake)
            os.close(self._awake)

    def kill(self) -> None:
        self._end(0.0)

    def _end(self, patience: float) -> None:
        with self._lock:
            self._ending.set()
        if self._placed and not self.dead:
            closed = self._host.close.remote(patience)
            self._ray.wait([closed], timeout=patience + HOST_SECONDS)
        self._ray.kill(self._host)

    def log_tail(self, lines: int = 20) -> str:
        said = _read(self.log) or ""
        return "\n".join(said.splitlines()[-lines:])


def _in_one_line(error: Exception) -> str:
    """Its class and the end of what it says, where the traceback of another node has its cause."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"


class RayCluster:
    """A running cluster, joined as a driver."""

    def __init__(self, address: str, start: LocalLaunch = local_launch) -> None:
        """Raises UserError when Ray is not installed or no cluster answers."""
        self._ray, self._start = _ray(), start
        try:
            self._ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"`--ray` must be the address of a running cluster, but got {address!r}: {_in_one_line(error)}; "
                "start one with `ray start --head`, or use `auto` on one of its nodes"
            ) from error
        self._marks: dict[Path, str] = {}

    def room(self, ranks: int) -> int:
        return engine_resources(self._nodes(), ranks)[1]

    def launch(self, ranks: int) -> Launch:
        """Raises UserError when no node has room for one engine."""
        resources, _ = engine_resources(self._nodes(), ranks)
        environment = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
        groups = {"commands": 1, "events": 1}  # beside the default one, so that neither waits for another
        actor = self._ray.remote(**resources, max_restarts=0, concurrency_groups=groups)(Host)

        def start(folder: Path, index: int) -> RayEngine:
            arguments = (str(folder.absolute()), index, ranks, self._start, self._mark(folder), environment)
            return RayEngine(self._ray, partial(actor.remote, *arguments), folder / f"engine-{index}.log")

        return start

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _mark(self, folder: Path) -> str:
        """What every node must find in the study's folder."""
        if folder not in self._marks:
            self._marks[folder] = f"{__version__} {uuid.uuid4()}"
            write_atomic(folder / MARKER, self._marks[folder])
        return self._marks[folder]

    def close(self) -> None:
        self._ray.shutdown()


def engine_resources(nodes: list[dict[str, float]], ranks: int) -> tuple[dict[str, Any], int]:
    """What an engine asks of Ray, and how many engines there is room for on nodes with these resources.

    With GPUs anywhere an engine takes one a rank. Without, it takes as many CPUs as the smallest node has.
    """
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if any(gpus):
        engines = sum(count // ranks for count in gpus)
        if not engines:
            raise UserError(
                f"`engine.ranks` must be at most the GPUs of one node, but got {ranks}, and the largest has "
                f"{max(gpus)}; lower it",
                field="engine.ranks",
            )
        return {"num_cpus": 1, "num_gpus": ranks}, engines
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise UserError("a Ray cluster must have GPUs or CPUs to run engines on, but none of its nodes has any")
    return {"num_cpus": min(cpus), "scheduling_strategy": "SPREAD"}, len(cpus)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("`--ray` needs the package ray, but it is not installed; pip install 'qtarget[ray]'") from error
    return ray
