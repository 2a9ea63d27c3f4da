"""Real processes of the tests without their seconds of importing: forked from one that has torch and transformers.

A process of the product that computes begins with five seconds of imports, and the tests start some hundred of them.
While `installed()`, `subprocess.Popen` has such a command (a module of MODULES, a script, `-c` code that names torch,
us or a test, a worker of pytest-xdist) forked from a nursery, a process that has imported and done nothing else. The
child has its own pid, session, command line, environment, working folder and standard streams; whoever asked is its
parent, so that signals, exit statuses and death with the parent are as ever. What such a process starts in turn is
forked likewise. What the imports warned of is in WARNED, for whoever is to fail over it.

Not so: commands with an environment that the imports have read otherwise (READ_BY_IMPORTS), with `preexec_fn` or
`pass_fds`, and everything where QTARGET_TESTS_START_ANEW is set or a test has the mark `started_anew`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = frozenset({
    "qtarget", "qtarget.search.engine.helper", "qtarget.search.engine.main", "qtarget.search.engine.ranks",
    "qtarget.evaluation.tiny_world.world", "torch.distributed.run", "accelerate.commands.launch", "ipykernel_launcher",
})  # fmt: skip
ENGINES = frozenset(name for name in MODULES if ".engine." in name)
"""They start no process that is worth a fork."""
IMPORTS = (
    "torch._dynamo", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
    "transformers.models.llama.configuration_llama", "accelerate", "datasets", "optuna", "mlflow", "typer",
    "rich.console", "qtarget.search.engine.helper", "qtarget.search.engine.inputs", "qtarget.search.engine.run",
    "qtarget.search.cli.main", "torch.distributed.run", "torch.distributed.fsdp", "mlflow.tracking.client",
    "mlflow.store.tracking.sqlalchemy_store", "qtarget.search.campaign.run", "qtarget.search.campaign.session",
    "qtarget.search.campaign.live", "qtarget.search.campaign.report", "qtarget.search.commands.by_hand",
    "qtarget.search.commands.cache", "qtarget.search.commands.evaluate", "qtarget.search.commands.reproduce",
    "qtarget.search.commands.train", "qtarget.search.commands.verify", "qtarget.search.export.write",
    "qtarget.search.init.begin",
)  # fmt: skip
"""What commands import when they are called, too."""
TESTS = ("hypothesis", "matplotlib.figure", "scipy.stats", "math_verify", "peft", "pyarrow.parquet")
"""What only a worker of the tests needs besides."""
WORKER = "import sys;exec(eval(sys.stdin.readline()))"
"""Begins each worker of pytest-xdist."""
READ_BY_IMPORTS = ("CUDA", "HF_", "LANG", "LC_", "LD_", "MALLOC", "MKL", "OMP", "PYTHON", "TRITON")
BY_HAND = frozenset({
    "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "PYTHONBREAKPOINT", "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_ENABLE_HF_TRANSFER", "HF_XET_HIGH_PERFORMANCE",
})  # fmt: skip
"""Read by us in the child, or of no weight: lm_eval and ray leave some of them in the process that imports them."""
ROOM = 4096
"""Bytes reserved in a nursery's own command line, for that of its children; as many in its environment."""
CHILD_SUBREAPER = 36
ANEW = "QTARGET_TESTS_START_ANEW"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
WARNED: list[warnings.WarningMessage] = []
Environment = frozenset[tuple[str, str]]
PATH: list[str] = []
"""Where a nursery itself imports from."""
LIBC = ctypes.CDLL(None, use_errno=True)
_execute_child = subprocess.Popen._execute_child  # type: ignore[attr-defined]
PARAMETERS = inspect.signature(_execute_child)


@contextmanager
def installed() -> Iterator[None]:
    """What this process starts is forked, where it can be. One that was forked has it so already."""
    if subprocess.Popen._execute_child is not _execute_child:  # type: ignore[attr-defined]
        yield
        return
    asked = Asked()
    asked.install()
    try:
        yield
    finally:
        subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]
        asked.close()


class Asked:
    """The side of whoever starts processes."""

    def __init__(self, near: socket.socket | None = None) -> None:
        """`near`: the end of a nursery that is there already. It knows this process's environment as it is now."""
        self._near = near
        self._environment = dict(os.environ)
        self._read = read_by_imports(os.environ)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """In the place of Popen's own method."""

        def execute_child(popen: Any, *arguments: Any) -> None:
            given = PARAMETERS.bind(popen, *arguments).arguments
            if not self._fork(popen, given):
                _execute_child(popen, *arguments)

        subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]

    def close(self) -> None:
        """The nursery leaves at the end of its socket."""
        if self._near is not None:
            self._near.close()
        if self._process is not None:
            self._process.wait()

    def _fork(self, popen: Any, given: Mapping[str, Any]) -> bool:
        environment = dict(os.environ if given["env"] is None else given["env"])
        plain = not any(given[name] for name in ("preexec_fn", "pass_fds", "shell")) and given["process_group"] == -1
        if not (plain and is_ours(given["args"])) or ANEW in environment or read_by_imports(environment) != self._read:
            return False
        request = {
            "command": [os.fspath(each) for each in given["args"]],
            "environment": environment,
            "folder": os.fspath(given["cwd"] or os.getcwd()),
            "session": bool(given["start_new_session"]),
            "parent": os.getpid(),
        }
        given_streams = enumerate(given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        streams = [number if descriptor == -1 else descriptor for number, descriptor in given_streams]
        with self._lock:
            popen.pid = ask(self._near or self._start(), request, streams)
        popen._child_created = True
        popen._close_pipe_fds(*(given[name] for name in PIPES))
        return True

    def _start(self) -> socket.socket:
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", __file__, str(far.fileno()), "." * ROOM]
        null, room = subprocess.DEVNULL, {"QTARGET_TESTS_ROOM": "." * ROOM}
        environment = self._environment | room
        self._process = subprocess.Popen(command, pass_fds=[far.fileno()], env=environment, stdin=null, stdout=null)
        far.close()
        return self._near


def ask(near: socket.socket, request: Mapping[str, Any], streams: Sequence[int]) -> int:
    """The child's pid. It becomes ours while we are the one who adopts: its first parent leaves at once."""
    text = os.memfd_create("request")
    LIBC.prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        os.write(text, json.dumps(request).encode())
        socket.send_fds(near, [b"fork"], [*streams, text])
        return int(near.recv(64))
    finally:
        LIBC.prctl(CHILD_SUBREAPER, 0, 0, 0, 0)
        os.close(text)


def is_ours(command: Any) -> bool:
    """Whether a command is one of this python's that is worth a fork."""
    if isinstance(command, str | bytes | os.PathLike) or os.fspath(command[0]) != sys.executable:
        return False
    kind, what, _ = parts([os.fspath(each) for each in command])
    if kind == "-m":
        return what in MODULES
    if kind == "-c":
        return what == WORKER or any(name in what for name in ("torch", "qtarget", "test_"))
    return kind == "script" and what != __file__


def parts(command: Sequence[str]) -> tuple[str, str, list[str]]:
    """(`-m`, `-c`, `script` or nothing that we know; which; the process's own arguments) of a python's command."""
    rest = list(command[1:])
    while rest and rest[0] in ("-B", "-P", "-u"):
        rest.pop(0)
    if len(rest) > 1 and rest[0] in ("-m", "-c"):
        return rest[0], rest[1], rest[2:]
    return ("script", rest[0], rest[1:]) if rest and rest[0].endswith(".py") else ("", "", [])


def read_by_imports(environment: Mapping[str, str]) -> Environment:
    """What imports may have looked at."""
    return frozenset((k, v) for k, v in environment.items() if k.startswith(READ_BY_IMPORTS) and k not in BY_HAND)


def live(near: socket.socket) -> tuple[str, str]:
    """A nursery's life. Returns in its children alone: what each is to run."""
    while True:
        kind, what = become(serve(near))
        if what in ENGINES:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return kind, what
        end, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() != 0:  # what this process starts is forked from a copy of what it is before it does anything
            far.close()
            Asked(end).install()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return kind, what
        end.close()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        near = far


def serve(near: socket.socket) -> dict[str, Any]:
    """Fork on request until the socket ends; returns in a child, with its request."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # those to the whole group; a child's wait until it is itself
    while True:
        message, descriptors, _, _ = socket.recv_fds(near, 64, 8)
        if not message:
            os._exit(0)
        request: dict[str, Any] = json.loads(os.pread(descriptors[3], os.fstat(descriptors[3]).st_size, 0))
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            if os.fork() == 0:
                near.close()
                while os.getppid() != request["parent"]:
                    time.sleep(0.001)
                for number, descriptor in enumerate(descriptors[:3]):
                    os.dup2(descriptor, number)
                if request["session"]:
                    os.setsid()
                os.write(writing, str(os.getpid()).encode())
                for descriptor in {reading, writing, *descriptors} - {0, 1, 2}:
                    os.close(descriptor)
                return request
            os._exit(0)
        os.waitpid(between, 0)
        near.send(os.read(reading, 64))
        for descriptor in (reading, writing, *descriptors):
            os.close(descriptor)


def become(request: Mapping[str, Any]) -> tuple[str, str]:
    """Take on folder, environment, streams and command line; (kind, what) is then to be run."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    kind, what, arguments = parts(request["command"])
    show(request["command"])
    sys.argv[:] = [what if kind == "script" else kind, *arguments]
    safe = "-P" in request["command"] or "PYTHONSAFEPATH" in os.environ
    first = {"script": str(Path(what).resolve().parent), "-m": os.getcwd(), "-c": ""}[kind]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = ([] if safe else [first]) + given + PATH
    if kind == "script":  # some are to show that they do without us
        for name in [name for name in sys.modules if name.partition(".")[0] == "qtarget"]:
            del sys.modules[name]
    unbuffered = "-u" in request["command"] or "PYTHONUNBUFFERED" in os.environ
    text: dict[str, Any] = {"encoding": sys.stdout.encoding, "closefd": False}
    sys.stdin = sys.__stdin__ = os.fdopen(0, **text)  # type: ignore[misc]
    out = os.fdopen(1, "w", buffering=1 if os.isatty(1) else -1, **text)
    out.reconfigure(write_through=unbuffered)
    sys.stdout = sys.__stdout__ = out  # type: ignore[misc]
    return kind, what


def show(command: Sequence[str]) -> None:
    """So that `ps` and whoever looks for a process by its command or environment find this one."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end, environment, end_of_all = (int(field) for field in fields[45:49])
    write(start, end - 1, b" ".join(os.fsencode(each) for each in command))
    ctypes.memset(end - 1, 1, 1)  # the kernel's sign that a process has written its own line
    write(environment, end_of_all, b"".join(name + b"=" + value + b"\0" for name, value in os.environb.items()))


def write(start: int, end: int, text: bytes) -> None:
    """`text` into the memory from `start` on, as far as it fits, and zeros to the end."""
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, min(len(text), end - start - 1))


def run(kind: str, what: str) -> int:
    """The exit status of what a command says; other exceptions pass, and python prints them."""
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif kind == "script":
            runpy.run_path(what, run_name="__main__")
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 0


def warned_of(names: Sequence[str]) -> list[warnings.WarningMessage]:
    """What importing these modules warns of; one that is not installed is left out."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for name in names:
            with suppress(ImportError):
                import_module(name)
    return warned


def import_all() -> None:
    """Without the collector, which would look through all of it every time again."""
    gc.disable()
    WARNED.extend(warned_of((*IMPORTS, *TESTS)))
    PATH.extend(sys.path)
    sys.path.append(str(Path(__file__).parent))
    with suppress(ImportError):
        made_once = import_module("made_once")
        made_once.install()
        made_once.read_once()
    gc.collect()
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    sys.modules["nursery"] = sys.modules["__main__"]  # to a worker, this is the module
    import_all()
    status = run(*live(socket.socket(fileno=int(sys.argv[1]))))
    threading._shutdown()  # type: ignore[attr-defined]  # as at the end of any python; but what is in memory is left
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
