"""A journal of study events on disk, so that tracking can fall behind, fail and catch up without losing any."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..study.events import Event, RungScored, StepDone
from ..study.files import write_atomic

STEPS_LOGGED = 50
"""At most about this many training steps of a trial are logged."""


@dataclass(frozen=True)
class Entry:
    """One spooled event."""

    kind: str
    """Class name of the event."""
    milliseconds: int
    """When it happened, since the epoch."""
    data: dict[str, Any]
    end: int
    """Byte offset behind the entry."""
    identity: str | None = None
    """Of the study: one that was made anew under the old name has another."""


class SpoolTakenError(RuntimeError):
    """Another living process writes to this journal."""


class EventSpool:
    """Append-only JSON lines plus the offset up to which a reader has delivered; one process at a time.

    Safe to reopen after a kill: a torn last line is closed off and skipped, delivery goes on at the saved offset. On a
    full disk events wait in memory.

    Raises SpoolTakenError when another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset_path = path.with_suffix(".offset")
        self._lock = threading.Lock()
        self._pending: deque[bytes] = deque()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise SpoolTakenError(str(path)) from None
        except OSError:
            pass  # a file system without locks: nobody else is kept away
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._pending.append(b"\n")
        self.delivered = self._saved_offset()

    def _saved_offset(self) -> int:
        """From the start where it cannot be read: what is written twice changes nothing."""
        try:
            return min(int(self._offset_path.read_bytes()), self._size)
        except (OSError, ValueError):
            return 0

    def append(self, event: Event, identity: str | None = None) -> None:
        line = {"kind": type(event).__name__, "milliseconds": time.time_ns() // 1_000_000, "data": asdict(event)}
        line |= {} if identity is None else {"identity": identity}
        with self._lock:
            self._pending.append(json.dumps(line, default=str).encode() + b"\n")
            self._write()

    def flush(self) -> None:
        """Write what has waited in memory for room."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        """A line is written whole or, when the disk is full, not at all."""
        while self._pending:
            try:
                written = os.write(self._file, self._pending[0])
            except OSError:
                return
            if written < len(self._pending[0]):
                os.ftruncate(self._file, self._size)
                return
            self._size += len(self._pending.popleft())

    def undelivered(self, limit: int = 5000) -> Iterator[Entry]:
        """At most `limit` whole entries behind the delivered offset, in order; torn lines are passed over."""
        yield from itertools.islice(read_entries(self.path, self.delivered), limit)

    def mark_delivered(self, end: int) -> None:
        """Remember, across crashes, that everything before byte `end` has arrived."""
        write_atomic(self._offset_path, str(end))
        self.delivered = end

    def backlog_bytes(self) -> int:
        return self._size - self.delivered + sum(map(len, self._pending))

    def close(self) -> None:
        """Flush to disk and let others have it."""
        self.flush()
        with suppress(OSError):  # no room, even for that
            os.fsync(self._file)
        os.close(self._file)


def read_entries(path: Path, offset: int = 0) -> Iterator[Entry]:
    """The whole entries of a journal from byte `offset` on, delivered or not, in order."""
    with path.open("rb") as file:
        file.seek(offset)
        while (line := file.readline()).endswith(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            yield Entry(entry["kind"], entry["milliseconds"], entry["data"], file.tell(), entry.get("identity"))


def open_spool(folder: Path) -> EventSpool:
    """This process's journal of the study in `folder`: `tracking.jsonl`, or one of its own while another has that."""
    try:
        return EventSpool(folder / "tracking.jsonl")
    except SpoolTakenError:
        return EventSpool(folder / f"tracking-{os.getpid()}-{time.time_ns()}.jsonl")


def orphans(folder: Path) -> list[EventSpool]:
    """Journals that processes left behind undelivered when they died, now open here."""
    found = []
    for path in sorted(folder.glob("tracking*.jsonl")):
        try:
            spool = EventSpool(path)
        except SpoolTakenError:
            continue
        if spool.backlog_bytes() > 0:
            found.append(spool)
        else:
            spool.close()
    return found


class Logged:
    """Steps and rungs that this host's journals hold already: a resumed trial passes them again, bit for bit."""

    def __init__(self, folder: Path) -> None:
        self._last_step: dict[tuple[str | None, int], int] = {}
        self._rungs: set[tuple[str | None, int, int]] = set()
        for path in folder.glob("tracking*.jsonl"):
            for entry in read_entries(path):
                if entry.kind in ("StepDone", "RungScored"):
                    self._note(entry.kind, entry.identity, entry.data["number"], entry.data["step"])

    def is_new(self, event: Event, identity: str | None = None) -> bool:
        """Whether `event` is worth logging and has not been logged; it counts as logged from now on."""
        if isinstance(event, StepDone):
            new = _worth_logging(event) and event.step > self._last_step.get((identity, event.number), 0)
        elif isinstance(event, RungScored):
            new = (identity, event.number, event.step) not in self._rungs
        else:
            return True
        if new:
            self._note(type(event).__name__, identity, event.number, event.step)
        return new

    def _note(self, kind: str, identity: str | None, number: int, step: int) -> None:
        if kind == "StepDone":
            self._last_step[identity, number] = max(step, self._last_step.get((identity, number), 0))
        else:
            self._rungs.add((identity, number, step))


def _worth_logging(event: StepDone) -> bool:
    every = max(1, event.steps // STEPS_LOGGED)
    return event.step % every == 0 or event.step in (1, event.steps)
