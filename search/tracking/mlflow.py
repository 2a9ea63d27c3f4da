"""MLflow, written from events and never read back into the study: a parent run a study, a child run a trial.

A thread replays the spool; when the server is down or slow, events wait on disk. Metrics carry the time at which they
happened, so that a replay after a crash writes the same rows again instead of new ones.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from contextlib import closing
from pathlib import Path

from ..study.events import Event, StudyStarted
from ..study.secrets import redact
from .connection import is_refusal
from .spool import Entry, EventSpool, Logged, open_spool, orphans
from .writer import MlflowWriter

log = logging.getLogger(__name__)
IDLE_SECONDS = 10.0
"""Between two looks for what other processes have left, while there is nothing to deliver."""
GATHER_SECONDS, MOST_GATHER_SECONDS, SHARE = 1.0, 10.0, 50
"""How long steps gather before they are delivered together: within these bounds until the last delivery was no more
than one part in so many of a core."""
STALL_SECONDS = 12.0
"""At the end of a study: a store that has taken nothing for so long is not waited for."""


class MlflowTracking:
    """Listener that spools every event and delivers it to MLflow from a thread of its own."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        study: str,
        folder: Path,
        *,
        place: str | None = None,
        drain_seconds: float = 60.0,
    ) -> None:
        """`place`: where a study without an identity is kept; default: its folder."""
        self._folder, self._spool, self._logged = folder, open_spool(folder), Logged(folder)
        self._writer = MlflowWriter(uri, experiment, study, folder, place or str(folder.resolve()))
        self._drain_seconds = drain_seconds
        self._identity: str | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self.failure: str | None = None
        """Why the last delivery did not go through; None after a success."""
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        if isinstance(event, StudyStarted):
            self._identity = event.identity
        if self._logged.is_new(event, self._identity):
            self._spool.append(event, self._identity)
            self._wake.set()

    def close(self) -> None:
        """Wait at most `drain_seconds` for the backlog, while it shrinks or nothing has failed yet.

        What is left goes out at the next start.
        """
        self._closing.set()
        self._wake.set()
        deadline, left = time.monotonic() + self._drain_seconds, -1
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self.failure is not None and left == self._spool.backlog_bytes():
                break
            left = self._spool.backlog_bytes()
            self._thread.join(min(self._drain_seconds, STALL_SECONDS))
        if self._spool.backlog_bytes():
            log.warning("MLflow did not take %d bytes of events (%s); they are kept in %s and sent at the next start",
                        self._spool.backlog_bytes(), self.failure or "too slow", self._spool.path)  # fmt: skip
        self._spool.close()

    def _deliver(self) -> None:
        pause, retry, last = 1.0, 1.0, False
        while not last:
            self._wake.wait(pause)
            self._wake.clear()
            closing, begun = self._closing.is_set(), time.thread_time()
            try:
                self._deliver_backlog()
                pause, retry, self.failure = IDLE_SECONDS, 1.0, None
            except Exception as error:
                pause = retry = min(30.0, retry * 2)
                self.failure = redact(f"{type(error).__name__}: {error}")
            last = closing and (self.failure is not None or not self._spool.backlog_bytes())
            used = time.thread_time() - begun
            self._closing.wait(min(max(GATHER_SECONDS, SHARE * used), MOST_GATHER_SECONDS))

    def _deliver_backlog(self) -> None:
        """What processes that died have left, then our own."""
        self._writer.open()
        for spool in orphans(self._folder):
            with closing(spool):
                self._deliver_from(spool)
        self._spool.flush()
        self._deliver_from(self._spool)

    def _deliver_from(self, spool: EventSpool) -> None:
        while entries := list(spool.undelivered()):
            for _, group in itertools.groupby(entries, key=lambda entry: (entry.kind, entry.data.get("number"))):
                batch = list(group)
                self._write(batch)
                spool.mark_delivered(batch[-1].end)

    def _write(self, batch: list[Entry]) -> None:
        """What the store refuses is left out, and keeps nothing behind it from being written."""
        try:
            self._writer.write(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(batch) > 1:
                for entry in batch:
                    self._write([entry])
                return
            log.warning("MLflow refused %s of %s, which is left out there: %s", batch[0].kind, self._named(batch[0]),
                        redact(str(error)).partition("\n")[0][:300])  # fmt: skip

    @staticmethod
    def _named(entry: Entry) -> str:
        return f"trial {entry.data['number']}" if "number" in entry.data else "the study"
