"""Room on the disk: when a trial may start, and which checkpoints make way."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from .history import TrialRecord, best

log = logging.getLogger(__name__)
WAITING = 8
"""Paused trials whose checkpoints are kept, those that are likeliest to go on."""
SPARE = 2**30
"""Bytes for everything but checkpoints."""
FULL_SECONDS = 30.0
"""Pause after an engine found the disk full, whatever it shows as free (quotas)."""


def needed_bytes(asked: float | None, checkpoint: int, engines: int) -> int:
    """What must be free for a trial to start: each engine writes a checkpoint, one of them beside the one it replaces.

    `asked`: GiB that the study's file says instead; `checkpoint`: bytes.
    """
    return SPARE + (engines + 1) * checkpoint if asked is None else round(asked * 2**30)


def free_bytes(folder: Path) -> int:
    """On the file system of a folder, which need not be there yet."""
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


class Disk:
    """The file system of a study's folder."""

    def __init__(self, folder: Path, asked: float | None) -> None:
        """`asked`: GiB that must be free for a trial to start; None: as many as checkpoints will take."""
        self._folder, self._asked, self._roomy = folder, asked, True
        self._needed = needed_bytes(asked, 0, 0)

    def expect(self, checkpoint: int, engines: int) -> None:
        """So many engines write checkpoints of so many bytes."""
        self._needed = needed_bytes(self._asked, checkpoint, engines)

    def has_room(self, last_full: float) -> bool:
        """Whether it takes another trial; while it does not, the study waits instead of failing trials.

        `last_full`: when an engine last found it full, in the seconds of `time.monotonic`.
        """
        free = free_bytes(self._folder)
        enough = free >= self._needed and time.monotonic() - last_full > FULL_SECONDS
        if not enough and self._roomy:
            said = "%s has %.1f GiB free, a trial needs %.1f; waiting for room (`limits.disk_gigabytes` asks for less)"
            log.warning(said, self._folder, free / 2**30, self._needed / 2**30)
        if enough and not self._roomy:
            log.warning("%s has room again; going on", self._folder)
        self._roomy = enough
        return enough


def drop_checkpoints(records: Sequence[TrialRecord], paused: bool = False) -> None:
    """Checkpoints are several times the model: keep the best trial's and those of trials to go on with, of the paused
    ones the likeliest.

    `paused`: nothing is left to go on with, and those of paused trials go, too; a larger budget trains them anew.
    """
    for record in _paused(records)[: None if paused else -WAITING]:
        shutil.rmtree(record.folder / "checkpoint", ignore_errors=True)
    winner = best(records)
    kept = {record.folder for record in records if not record.finished} | ({winner.folder} if winner else set())
    for folder in {record.folder for record in records} - kept:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def drop_one(records: Sequence[TrialRecord]) -> bool:
    """Have the checkpoint of one paused trial make way, of the one least likely to go on; False when there is none.

    If it is promoted all the same, it is trained from its start, to the same weights.
    """
    paused = _paused(records)
    if not paused:
        return False
    shutil.rmtree(paused[0].folder / "checkpoint", ignore_errors=True)
    return not (paused[0].folder / "checkpoint").exists()


def _paused(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Paused trials with a checkpoint, the least likely to go on first."""
    paused = (record for record in records if record.state == "paused" and (record.folder / "checkpoint").exists())
    return sorted(paused, key=lambda record: (max(record.rungs, default=0), record.score or 0.0, -record.number))
