"""Verification workers: spawned once, reused, killed at the wall-clock limit, replaced.

They are plain subprocesses, so they work from any thread, from a daemonic process and from a script without a main
guard, and never touch signals of the caller.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

START_LIMIT = 120.0
"""Seconds a worker may take to import what it needs."""
LOAD_LIMIT = 3600.0
"""Seconds a worker may take to load a task with its data set, which may come over a network."""

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from qtarget.evaluation.verification.worker import main; main()"
)


class Worker:
    """One subprocess that answers one request at a time. Not thread-safe; the pool hands it out."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env=environment,
        )
        self.alive = True
        self._loaded: set[str] = set()
        if self._read(START_LIMIT) is None:
            self.close()
            raise RuntimeError(
                "The verification worker did not start; run `python -c 'import math_verify'` to see the reason"
            )

    def ask(self, request: dict[str, Any], limit: float) -> tuple[str, str]:
        """(verdict, detail) of one request; a worker past its limit (seconds) is killed and is not alive afterwards.

        What the request's `module` takes to import, or its `first` request to answer, is not on its clock.
        """
        module = request.get("module")
        first = request.get("first") or (None if module is None else {"do": "load", "module": module})
        if first is not None and (name := json.dumps(first)) not in self._loaded:
            loaded = self._exchange(first, START_LIMIT if module is not None else LOAD_LIMIT)
            if loaded[0] != "correct":
                return loaded
            self._loaded.add(name)
        return self._exchange(request, limit)

    def _exchange(self, request: dict[str, Any], limit: float) -> tuple[str, str]:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request | {"limit": limit}) + "\n")
            self._process.stdin.flush()
            reply = self._read(limit)
        except OSError:
            reply, self._expired = None, False
        if reply is not None:
            return reply["verdict"], reply["detail"]
        expired = self._expired
        self.close()
        return ("timeout", f"longer than {limit:g} s") if expired else ("error", "the verification worker died")

    def _read(self, limit: float) -> dict[str, Any] | None:
        """One reply, or None when the process ended or was killed at its limit."""
        assert self._process.stdout is not None
        self._expired = False
        timer = threading.Timer(limit, self._expire)
        timer.daemon = True
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            return None
        self.alive = not self._expired
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def close(self) -> None:
        """End the process; safe to call twice."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a pipe whose reader was killed may hold unflushed bytes
                    stream.close()


class WorkerPool:
    """Up to `size` workers, started when first needed. Thread-safe."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    def ask(self, request: dict[str, Any], limit: float) -> tuple[str, str]:
        """(verdict, detail) of one request, within `limit` seconds once a worker is free."""
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                worker = None
                worker = Worker()
            return worker.ask(request, limit)
        finally:
            self._idle.put(worker if worker is not None and worker.alive else None)

    def ask_all(self, requests: Sequence[dict[str, Any]], limit: float) -> list[tuple[str, str]]:
        """Answers in the order of the requests; starting a worker pays off from some dozens of requests on."""
        threads = max(1, min(self.size, len(requests) // 32))
        if threads == 1:
            return [self.ask(request, limit) for request in requests]
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(lambda request: self.ask(request, limit), requests))

    def close(self) -> None:
        """End all idle workers."""
        workers = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for worker in workers:
            if worker is not None:
                worker.close()
            self._idle.put(None)


_shared: WorkerPool | None = None
_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """The pool of this process."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = WorkerPool(max(1, min(4, (os.cpu_count() or 1) // 2)))
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    """A forked child must not share its parent's pipes."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
