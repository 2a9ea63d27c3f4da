"""Short work that needs torch, in a process of its own: asked once, heard on its way, its faults raised here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

from ...spaces.errors import UserError
from .process import PYTHON, SAFE, parse_message

MODULE = "qtarget.search.engine.helper"
Hear = Callable[[Mapping[str, Any]], None]
"""Hears each message; one with `phase`, `done` and `total` is progress."""


class Stop(Protocol):
    """Becomes readable when a person wants an end; `count` says how often."""

    count: int

    def fileno(self) -> int: ...

    def drain(self) -> None: ...


def ask(
    verb: str,
    request: Mapping[str, Any],
    hear: Hear,
    *,
    start: Sequence[str] = PYTHON,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """What a process of the engine's room answers to `request` (JSON data); empty from a rank that only computes along.

    `start`: what launches it, python itself or a launcher of ranks. `stop`: the first signal asks for a clean end, the
    second kills. Raises UserError for what the user can mend, RuntimeError with the process's words for the rest.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), "utf-8")
        return run(verb, [*start, "-m", MODULE, verb, str(path)], hear, stop)


def run(name: str, command: Sequence[str], hear: Hear, stop: Stop | None = None) -> dict[str, Any]:
    """Run a command that speaks JSON lines; its last message. Raises as `ask` does, naming it `name`."""
    pipe = subprocess.PIPE
    last: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        # standard input stays open until the end: its end would tell an engine to leave
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env={**os.environ, **SAFE}) as process,
    ):
        for message in _messages(process, stop):
            hear(message)
            last = message
        process.wait()
        errors.seek(0)
        words = errors.read()[-3000:]
    _raise_fault(name, process.returncode, last, words)
    return {key: value for key, value in last.items() if key != "type"}


def _messages(process: subprocess.Popen[bytes], stop: Stop | None) -> Iterator[dict[str, Any]]:
    """JSON lines of the process until its output ends; other lines are somebody else's words."""
    assert process.stdout is not None and process.stdin is not None
    buffer = b""
    while True:
        heard: list[Any] = [process.stdout] if stop is None else [process.stdout, stop]
        ready, _, _ = select.select(heard, [], [])
        if stop is not None and stop in ready:
            stop.drain()
            if stop.count > 1:
                process.kill()
            with suppress(BrokenPipeError):  # the signal has reached it, too, and it has left
                process.stdin.write(b'{"type": "stop"}\n')
                process.stdin.flush()
        if process.stdout in ready:
            read = cast(Any, process.stdout).read1()
            if not read:
                return
            *lines, buffer = (buffer + read).split(b"\n")
            yield from (message for line in lines if (message := parse_message(line)) is not None)


def _raise_fault(name: str, code: int, last: Mapping[str, Any], words: str) -> None:
    failure = last.get("failure")
    if failure is not None and failure["kind"] == "user":
        raise UserError(failure["message"], field=failure.get("field"))
    if failure is not None:
        raise RuntimeError(f"{name} failed: {failure['message']}\n{failure.get('traceback', '')}")
    if code and last.get("type") != "done":  # a launcher of ranks that a signal has ended, too, says so by its status
        raise RuntimeError(f"{name} ended with status {code}; it said:\n{words}")
