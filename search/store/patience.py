"""Waiting out what passes: a full disk, or a database that is away, pauses a study and does not end it."""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import DBAPIError

from ...spaces.errors import UserError
from ..study.secrets import redact
from .server import passes

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
        self.held_up: Callable[[float], None] = lambda seconds: None
        """Told between two tries how long this has been waited for."""

    def wait_for(self, action: Callable[[], Result]) -> Result:
        """The result of `action`, tried again after each failure that `passing` names.

        Raises KeyboardInterrupt when told to give up: nothing can be stored any more, and what was running is found and
        put back at the next start. Raises UserError for what a database refuses, and will go on to refuse.
        """
        waiting, begun = False, time.monotonic()
        while True:
            try:
                result = action()
            except Exception as error:
                reason = passing(error)
                if reason is None:
                    if (refused := _refusal(error)) is not None:
                        raise refused from error
                    raise
                if self.give_up():
                    raise KeyboardInterrupt(f"stopped while waiting: {reason}") from error
                if not waiting:
                    log.warning("%s; the study pauses until that has passed", reason)
                waiting = True
                self.held_up(time.monotonic() - begun)
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
    return next(filter(None, map(_passing, _chain(error))), None)


def _refusal(error: BaseException) -> UserError | None:
    """What to tell of an error of the database that does not pass; None for any other error."""
    if not isinstance(error, DBAPIError | optuna.exceptions.StorageInternalError):
        return None
    causes = [str(link.orig) for link in _chain(error) if isinstance(link, DBAPIError)]
    said = redact(causes[-1] if causes else str(error)).strip().partition("\n")[0]
    return UserError(
        f"`storage` must take what a study writes, but the database refuses it ({said}); mend that, and the same "
        "command goes on",
        field="storage",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _passing(error: BaseException) -> str | None:
    said = redact(str(error)).strip().partition("\n")[0]
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in said.lower() for sign in FULL):
        return f"the disk is full ({said})"
    if isinstance(error, TimeoutError):
        return f"another process holds the study's lock ({said})"
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        stuck = "disk I/O error" in said or "database is locked" in said
        return f"the database cannot be written ({said})" if stuck else None
    if isinstance(error, DBAPIError) and passes(error):
        return f"the database server is away ({said})"
    return None
