"""Who is working on a trial: a lease each, renewed by the supervisor, reaped when the supervisor is gone.

No clock of any host is trusted. A renewal counts one up, and whoever watches measures with its own monotonic clock how
long nothing was counted; time in which it could not look, because the database was away, is not held against anybody.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from ...spaces.settings import Settings

ATTRIBUTE = "lease"
"""User attribute of a trial that holds its lease; None when it was given back."""
_HELD: set[str] = set()
"""Tokens of the leases that a supervisor of this process stands by."""


class Lease(Settings):
    """One supervisor's right to run one trial, for as long as it renews it."""

    token: str
    """Unique to the claim: a supervisor that was thought dead finds another token and stands back."""
    host: str
    pid: int
    started: float
    """Start time of the process, seconds since the host's boot: a reused pid is another process."""
    seconds: float = 60.0
    """Its holder renews it several times within so many."""
    renewals: int = 0
    expires: float | None = None
    """Of leases as they were once written; it changed with every renewal."""

    @property
    def beat(self) -> tuple[Any, ...]:
        """Another one after each renewal."""
        return self.token, self.renewals, self.expires

    def renewed(self) -> Lease:
        return self.model_copy(update={"renewals": self.renewals + 1})

    @property
    def is_here(self) -> bool:
        """Whether its holder is, or was, a process of this host."""
        return self.host == this_host()

    @property
    def lost_here(self) -> bool:
        """Whether its holder, of this host, can no longer be working."""
        if self.pid == os.getpid() and _alive(self.pid, self.started):
            return self.token not in _HELD  # of a supervisor that this very process has left
        return not _alive(self.pid, self.started)


class Watch:
    """Tells which leases are lost: their holders are dead on this host, or have been silent too long elsewhere."""

    def __init__(self) -> None:
        self._looked: float | None = None
        self._silent: dict[tuple[Any, ...], float] = {}
        """Seconds for which each beat was the last one, as far as this process could see."""

    def lost(self, leases: Sequence[Lease], now: float | None = None) -> set[str]:
        """Tokens of those among `leases`, all that are held now, which are lost. `now`: seconds, `time.monotonic`."""
        now = time.monotonic() if now is None else now
        passed = 0.0 if self._looked is None else now - self._looked
        before, self._silent, self._looked = self._silent, {}, now
        for lease in leases:
            # who could not look for long lets the holder, who could not renew either, speak first
            seen = min(passed, lease.seconds / 2)
            self._silent[lease.beat] = before[lease.beat] + seen if lease.beat in before else 0.0
        return {
            lease.token
            for lease in leases
            if (lease.lost_here if lease.is_here else self._silent[lease.beat] > lease.seconds)
        }


def new_lease(seconds: float) -> Lease:
    token, pid = secrets.token_hex(8), os.getpid()
    _HELD.add(token)
    return Lease(token=token, host=this_host(), pid=pid, started=_started(pid), seconds=seconds)


def drop(tokens: Iterable[str]) -> None:
    """Stand by these leases no longer: what they stood for is reaped though this process lives on."""
    _HELD.difference_update(tokens)


def read_lease(attributes: Mapping[str, Any]) -> Lease | None:
    stored = attributes.get(ATTRIBUTE)
    return None if stored is None else Lease.model_validate(stored)


@cache
def this_host() -> str:
    """Host name, boot and process namespace: only within all three do process ids mean the same thing."""
    return ":".join([socket.gethostname(), _first_line("/proc/sys/kernel/random/boot_id"), _namespace()])


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return "-"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"


def _alive(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(_started(pid) - started) < 0.1 or abs(process.create_time() - started) < 1.0  # as once written
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False


def _started(pid: int) -> float:
    """When a process started, in seconds since boot: unlike the time of day, that is never set."""
    if not sys.platform.startswith("linux"):
        return float(psutil.Process(pid).create_time())
    after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2]
    return int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
