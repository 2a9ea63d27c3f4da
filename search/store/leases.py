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
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial, Trial, TrialState

from ...spaces.settings import Settings
from .storage import StudyStorage

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


class LeaseLostError(RuntimeError):
    """Another supervisor has taken this trial over; whatever was computed here for it must not be told."""


@dataclass
class Claim:
    """A trial that this supervisor may run for as long as it renews its lease."""

    trial: Trial
    lease: Lease
    attempt: int
    """1 for the first try."""

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def attributes(self) -> dict[str, Any]:
        return self.trial.user_attrs

    @property
    def frozen(self) -> FrozenTrial:
        """The trial as it is stored."""
        return self.trial.study._storage.get_trial(self.trial._trial_id)


class Claims:
    """What one supervisor holds of a study's trials: nothing is written of them without a lease."""

    def __init__(self, storage: StudyStorage, lease_seconds: float) -> None:
        self._storage, self._lease_seconds = storage, lease_seconds
        self._tokens: list[str] = []

    def _new_lease(self) -> Lease:
        lease = new_lease(self._lease_seconds)
        self._tokens.append(lease.token)
        return lease

    def renew(self, claim: Claim, seconds: float | None = None) -> None:
        """Extend the lease and keep the `seconds` used so far; raises LeaseLostError when it has been taken over."""
        with self._storage.lock():
            self._check(claim)
            claim.lease = claim.lease.renewed()
            self._set(claim.trial._trial_id, ATTRIBUTE, claim.lease.model_dump())
            if seconds is not None:
                self._set(claim.trial._trial_id, "seconds", seconds)

    def note(self, claim: Claim, **attributes: Any) -> None:
        """Keep facts with the trial; raises LeaseLostError when it was taken over and finished."""
        try:
            for name, value in attributes.items():
                claim.trial.set_user_attr(name, value)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise LeaseLostError(f"trial {claim.number} was finished by another supervisor") from None

    def note_attempt(self, claim: Claim, why: str) -> None:
        """Count another try of a trial that stays ours, with the reason in its chain."""
        claim.attempt += 1
        self.note(claim, attempts=claim.attempt, chain=[*claim.attributes.get("chain", []), _link(why)])

    def rungs(self, claim: Claim) -> dict[int, float]:
        """Scores already reported, by optimiser step."""
        return self._storage.backend.get_trial(claim.trial._trial_id).intermediate_values

    def leave(self) -> None:
        """Stand by the claims made here no longer."""
        drop(self._tokens)

    def _check(self, claim: Claim) -> None:
        stored = self._storage.backend.get_trial(claim.trial._trial_id)
        lease = read_lease(stored.user_attrs)
        if stored.state != TrialState.RUNNING or lease is None or lease.token != claim.lease.token:
            raise LeaseLostError(f"trial {claim.number} was taken over by another supervisor")

    def _release(self, trial_id: int, attributes: Mapping[str, Any], why: str) -> None:
        """Back to WAITING, with the reason in the trial's chain of attempts."""
        self._set(trial_id, "chain", [*attributes.get("chain", []), _link(why)])
        self._wait_again(trial_id)

    def _wait_again(self, trial_id: int) -> None:
        self._set(trial_id, ATTRIBUTE, None)
        self._storage.backend.set_trial_state_values(trial_id, TrialState.WAITING)

    def _set(self, trial_id: int, name: str, value: Any) -> None:
        self._storage.backend.set_trial_user_attr(trial_id, name, value)


def _link(why: str) -> dict[str, str]:
    return {"why": why, "at": datetime.now(UTC).isoformat(timespec="seconds")}
