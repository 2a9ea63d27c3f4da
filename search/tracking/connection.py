"""The way to a tracking store: made once, for local stores under a lock; and which of its answers are refusals."""

from __future__ import annotations

import errno
import glob
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ..store.storage import sqlite_path, sqlite_url
from ..study.secrets import LOCAL, is_local
from .moves import follow_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
)
"""MLflow's codes for what it will not take at any later time either."""
LEVEL = "MLFLOW_LOGGING_LEVEL"


def artifact_root(uri: str, folder: Path) -> str | None:
    """Where artifacts of an experiment lie: beside a local store, not where the command was called; else its choice."""
    return (folder.resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None


def connect(uri: str, folder: Path) -> MlflowClient:
    """Client of a tracking store; a local store's tables are made once, under a lock (creation races otherwise).

    Raises PermissionError for a file that may not be written, which MLflow would try again and again.
    """
    _refuse_read_only(uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    # standard output belongs to the program: `--json` prints one document there
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ[LEVEL] = logging_level()
    if is_local(uri):
        past_proxies()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(os.environ[LEVEL])  # it may have been imported before
    writable = os.access(folder, os.W_OK)
    with FileLock(folder / "tracking.tables.lock") if writable else nullcontext():
        _make_tables(uri)
        follow_folder(uri, folder)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def logging_level() -> str:
    """The level that the environment asks of MLflow, as MLflow wants it written; WARNING where it is none."""
    level = os.environ.get(LEVEL, "").strip().upper()
    return level if level in logging.getLevelNamesMapping() else "WARNING"


def past_proxies() -> None:
    """Let requests to servers of this host go to them, and not to a proxy, which cannot know them."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOCAL]))


def is_refusal(error: Exception) -> bool:
    """Whether a store that works has refused what it was told, so that telling it again is of no use."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    return isinstance(error, ValueError | LookupError | TypeError | AttributeError) and not isinstance(error, OSError)


def _refuse_read_only(uri: str) -> None:
    path = sqlite_path(uri) if uri.startswith("sqlite:") else None
    for place in (path, path.parent) if path is not None else ():
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written here (read-only, or another user's)", str(place))


def _make_tables(uri: str) -> None:
    """Make a new SQLite store beside its place and move it there: one whose making was killed is beyond repair."""
    from mlflow import MlflowClient

    path = sqlite_path(uri) if uri.startswith("sqlite:") else None
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part-{os.getpid()}")
    MlflowClient(sqlite_url(partial)).search_experiments(max_results=1)
    partial.replace(path)
    for left in path.parent.glob(f"{glob.escape(path.name)}.part-*"):
        left.unlink()
