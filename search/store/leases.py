"""Who is working on a trial: a lease each, renewed by the supervisor, reaped when the supervisor is gone."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
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
    """One supervisor's right to run one trial until it expires."""

    token: str
    """Unique to the claim: a supervisor that was thought dead finds another token and stands back."""
    host: str
    pid: int
    started: float
    """Start time of the process, seconds since 1970: a reused pid is another process."""
    expires: float
    """Seconds since 1970 (UTC)."""

    def renewed(self, seconds: float) -> Lease:
        return self.model_copy(update={"expires": time.time() + seconds})

    def lost(self, now: float | None = None) -> bool:
        """Whether its holder can no longer be working: dead on this host, or silent past the expiry elsewhere."""
        if self.host != this_host():
            return (time.time() if now is None else now) > self.expires
        if self.pid == os.getpid() and _alive(self.pid, self.started):
            return self.token not in _HELD  # of a supervisor that this very process has left
        return not _alive(self.pid, self.started)


def new_lease(seconds: float) -> Lease:
    process = psutil.Process()
    token = secrets.token_hex(8)
    _HELD.add(token)
    return Lease(
        token=token,
        host=this_host(),
        pid=process.pid,
        started=process.create_time(),
        expires=time.time() + seconds,
    )


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
        # create_time is derived from the boot clock and jitters by hundredths of a second
        return bool(abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
