"""Waiting out what passes: a full disk, or a database that is away, pauses a study and does not end it."""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ..study.redaction import redact

log = logging.getLogger(__name__)
Result = TypeVar("Result")
PAUSE_SECONDS = 1.0
"""Between two tries; full disks and restarting servers take longer, a held-up engine should not."""
FULL = ("no space left on device", "database or disk is full", "disk quota exceeded")
_THROUGH_THE_CACHE = ("_get_trials", "_create_new_trial", "_set_trial_param", "_get_best_trial_id")
"""What Optuna's cache calls on the storage below it, besides the public methods."""


class Patience:
    """Repeats an action for as long as what stops it may pass, and says so once."""

    def __init__(self) -> None:
        self.give_up: Callable[[], bool] = lambda: False
        """Asked between two tries: whether to wait no longer (Ctrl-C, the deadline)."""

    def wait_for(self, action: Callable[[], Result]) -> Result:
        """The result of `action`, tried again after each failure that `passing` names.

        Raises KeyboardInterrupt when told to give up: nothing can be stored any more, and what was running is found and
        put back at the next start.
        """
        waiting = False
        while True:
            try:
                result = action()
            except Exception as error:
                reason = passing(error)
                if reason is None:
                    raise
                if self.give_up():
                    raise KeyboardInterrupt(f"stopped while waiting: {reason}") from error
                if not waiting:
                    log.warning("%s; the study pauses until that has passed", reason)
                waiting = True
                time.sleep(PAUSE_SECONDS)
            else:
                if waiting:
                    log.warning("going on")
                return result

    def guard(self, storage: RDBStorage) -> RDBStorage:
        """Make every method of `storage` patient; each is one transaction, so that a try that failed left nothing."""
        for name in (*BaseStorage.__abstractmethods__, *_THROUGH_THE_CACHE):
            setattr(storage, name, self._patient(getattr(storage, name)))
        return storage

    def _patient(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            tries = 0

            def once() -> Any:
                nonlocal tries
                tries += 1
                try:
                    return method(*args, **kwargs)
                except optuna.exceptions.UpdateFinishedTrialError:
                    if tries == 1:
                        raise
                    return True  # the first try went through, only its answer was lost

            return self.wait_for(once)

        return call


def passing(error: BaseException) -> str | None:
    """What stands in the way, if it may pass by itself; None for any other error."""
    link: BaseException | None = error
    while link is not None:
        if (reason := _passing(link)) is not None:
            return reason
        link = link.__cause__ or link.__context__
    return None


def _passing(error: BaseException) -> str | None:
    said = redact(str(error)).strip().partition("\n")[0]
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in said.lower() for sign in FULL):
        return f"the disk is full ({said})"
    if isinstance(error, TimeoutError):
        return f"another process holds the study's lock ({said})"
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        stuck = "disk I/O error" in said or "database is locked" in said
        return f"the database cannot be written ({said})" if stuck else None
    if isinstance(error, OperationalError | InterfaceError):
        return f"the database server is away ({said})"
    return None
