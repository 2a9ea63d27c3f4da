"""run.log in the study's folder: what happened and when, whatever becomes of the terminal.

Every supervisor appends to it, those of other hosts too where they share the folder.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ... import __version__
from ..study.events import Event, RungScored, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from ..study.secrets import printable, redact

FILE = "run.log"


class RunLog(logging.Handler):
    """Writes a line for what matters of each event, and for each warning of the program."""

    def __init__(self, folder: Path) -> None:
        super().__init__(logging.WARNING)
        self._path = folder / FILE
        self._who = f"{socket.gethostname()}:{os.getpid()}"

    def write(self, text: str) -> None:
        """One entry; on a full disk it is left out."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S%z")
        line = f"{moment} {self._who} {printable(redact(text))}\n"
        with suppress(OSError), self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line)

    def emit(self, record: logging.LogRecord) -> None:
        self.write(f"{record.levelname.lower()}: {record.getMessage()}")
        if not logging.getLogger().handlers and logging.lastResort is not None:  # which this one stands before
            logging.lastResort.handle(record)

    def on_event(self, event: Event) -> None:
        if (line := _line(event)) is not None:
            self.write(line)


def _line(event: Event) -> str | None:
    match event:
        case StudyStarted():
            return (
                f"study {event.study} runs, qtarget {__version__}: {event.finished} of {event.trials} trials finished"
            )
        case TrialStarted():
            return f"trial {event.number} starts, attempt {event.attempt}: {event.title}"
        case RungScored():
            return f"trial {event.number} at step {event.step}: {event.score:.4f} ± {event.standard_error:.4f}"
        case TrialEnded():
            return f"trial {event.number} {event.state}" + (f": {event.reason}" if event.reason else "")
        case StudyEnded():
            ended = event.summary.get("ended", "")
            return f"study {event.state}" + (f" ({ended})" if ended not in ("", event.state) else "")
    return None


def used() -> tuple[float, float, float]:
    """Seconds until now: CPU of this process, CPU of processes that it started and waited for, and of the clock."""
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time(), started.ru_utime + started.ru_stime, time.monotonic()


def note_use(folder: Path, before: tuple[float, float, float]) -> None:
    """The last entry of a call: what it took since `before`, given by `used`; none for a study that left no folder."""
    here, started, seconds = (now - then for now, then in zip(used(), before, strict=True))
    RunLog(folder).write(f"used {here:.1f} s of CPU here and {started:.1f} s in engines, in {seconds:.1f} s")


@contextmanager
def run_log(folder: Path) -> Iterator[RunLog]:
    """The log of one call, open; an exception that ends the call is its last entry."""
    log, logger = RunLog(folder), logging.getLogger("qtarget")
    logger.addHandler(log)
    try:
        yield log
    except BaseException as error:
        log.write(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        logger.removeHandler(log)
