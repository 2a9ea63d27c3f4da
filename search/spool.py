"""A journal of study events on disk, so that tracking can fall behind, fail and catch up without losing any."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .events import Event


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


class EventSpool:
    """Append-only JSON lines plus the offset up to which a reader has delivered.

    Safe to reopen after a kill: a torn last line is closed off and skipped, delivery goes on at the saved offset.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tracking.jsonl"
        self._offset_path = folder / "tracking.offset"
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")
        self._file = self.path.open("ab")
        if torn:
            self._file.write(b"\n")
            self._file.flush()
        self.delivered = int(self._offset_path.read_text()) if self._offset_path.exists() else 0

    def append(self, event: Event) -> None:
        line = {"kind": type(event).__name__, "milliseconds": time.time_ns() // 1_000_000, "data": asdict(event)}
        with self._lock:
            self._file.write(json.dumps(line, default=str).encode() + b"\n")
            self._file.flush()

    def undelivered(self, limit: int = 5000) -> Iterator[Entry]:
        """At most `limit` whole entries behind the delivered offset, in order; torn lines are passed over."""
        with self.path.open("rb") as file:
            file.seek(self.delivered)
            for _ in range(limit):
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                yield Entry(entry["kind"], entry["milliseconds"], entry["data"], file.tell())

    def mark_delivered(self, end: int) -> None:
        """Remember, across crashes, that everything before byte `end` has arrived."""
        temporary = self._offset_path.with_suffix(".tmp")
        temporary.write_text(str(end))
        os.replace(temporary, self._offset_path)
        self.delivered = end

    def backlog_bytes(self) -> int:
        return self.path.stat().st_size - self.delivered

    def close(self) -> None:
        self._file.close()
