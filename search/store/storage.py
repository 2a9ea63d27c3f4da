"""Opening the store that holds a study's queue: SQLite by default, PostgreSQL, MySQL or MariaDB for several hosts.

Every change of a trial's state happens under one lock a study: SQLite ignores FOR UPDATE (six processes on one file
claim the same trial twice), and Optuna has no compare-and-set for a trial that leaves RUNNING.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import optuna
import psutil
import sqlalchemy
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ...spaces.errors import UserError
from ..study.secrets import encoded, redact, shown
from .copies import Copy
from .patience import Patience
from .server import LOCK_SECONDS, ServerLock, alone, prepare, require_driver, with_driver

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smbfs",
        "smb2",
        "smb3",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "afs",
        "fuse.sshfs",
    }
    | {"fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.s3fs", "fuse.gcsfuse", "fuse.beegfs", "orangefs", "panfs"}
)
Lock = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class StudyStorage:
    """An open store and the lock under which trials change hands."""

    url: str
    backend: BaseStorage
    lock: Lock
    patience: Patience
    """Once open, a full disk or a server that is away makes every call wait."""
    copy: Copy | None = None
    """What is read instead of a file that may not be written."""

    @property
    def shown(self) -> str:
        """The URL with its password hidden, for messages, reports and logs."""
        return shown(self.url)

    def close(self) -> None:
        """Give the connections back; the next use opens new ones."""
        self.backend.remove_session()
        _engine(self.backend).dispose()
        if self.copy is not None:
            self.copy.remove()


def sqlite_url(path: Path) -> str:
    """URL of an SQLite file, whatever characters its path has."""
    plain = f"sqlite:///{path.absolute()}"
    for url in (plain, URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)):
        if sqlite_path(url) == path.absolute():
            return url
    return f"sqlite:///file:{quote(str(path.absolute()))}?uri=true"  # SQLAlchemy before 2.1 decodes nothing


def placed(url: str, base: Path) -> str:
    """A database's URL as a file of settings has it: a relative path of SQLite starts at `base`, passwords are encoded.

    A `?` that no query follows is part of a path.
    """
    start = "sqlite:///"
    if not url.startswith(start):
        return encoded(url)
    path, _, query = url.removeprefix(start).partition("?")
    if query and "=" not in query:
        path, query = f"{path}?{query}", ""
    if query or path.startswith(("file:", ":memory:")) or (path.startswith("/") and "?" not in path):
        return url
    return sqlite_url(base / path)


def sqlite_path(url: str) -> Path | None:
    """The file that an SQLite URL names; None where it names none. Raises ArgumentError for what is no URL."""
    parsed = make_url(url)
    if not parsed.database or parsed.database == ":memory:":
        return None
    if parsed.query.get("uri") == "true" and parsed.database.startswith("file:"):
        return Path(unquote(parsed.database.removeprefix("file:")))
    return Path(parsed.database)


def open_storage(url: str, lock_name: str = "qtarget", *, reading: bool = False) -> StudyStorage:
    """Open the store at `url`, creating its tables once.

    `reading`: nothing will be written; an SQLite file that may not be written, on a read-only mount or of another user,
    is then read from a copy.

    Raises UserError (field `storage`) when the URL cannot be read, the server cannot be reached, or an SQLite file lies
    on a network file system, or may not be written.
    """
    patience, url = Patience(), encoded(url)
    try:
        if make_url(url).get_backend_name() == "sqlite":
            return _open_sqlite(url, reading, patience)
        return _open_server(url, lock_name, patience)
    except UserError:
        raise
    except Exception as error:  # the drivers raise whatever they like; all of it means "cannot be opened"
        raise UserError(_cannot_open(url, error), field="storage") from None


def _open_server(url: str, lock_name: str, patience: Patience) -> StudyStorage:
    named = with_driver(url)
    require_driver(named, "storage")
    with alone(named):
        backend = _rdb(named, {"pool_pre_ping": True}, patience)
        prepare(_engine(backend))
    lock = ServerLock(_engine(backend), lock_name)
    return StudyStorage(url, backend, lambda: lock.held(patience.wait_for), patience)


def _rdb(url: str, engine_kwargs: dict[str, object], patience: Patience) -> BaseStorage:
    template = url.replace("{", "{{").replace("}", "}}")  # which Optuna fills in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.get_storage(patience.guard(RDBStorage(template, engine_kwargs=engine_kwargs)))


def _open_sqlite(url: str, reading: bool, patience: Patience) -> StudyStorage:
    path = sqlite_path(url)
    if path is None:
        raise UserError(
            f"`storage` must outlive the process, but got {url}; name a file: sqlite:////absolute/path/study.db",
            field="storage",
        )
    if not path.parent.is_dir():
        raise UserError(
            f"`storage` must lie in a folder that exists, but got {url} and there is no {path.parent}; create it",
            field="storage",
        )
    if not _may_write(path):
        if not reading:
            raise UserError(
                f"`storage` must be writable, but got {url} on a read-only file system or of another user; "
                "`status`, `report --out` and `compare` can read it",
                field="storage",
            )
        copy = Copy(path)
        copied = _open_sqlite(sqlite_url(copy.path), False, patience)
        return StudyStorage(url, copied.backend, copied.lock, patience, copy)
    system = file_system(path)
    if system in NETWORK_FILE_SYSTEMS:
        raise UserError(
            f"`storage` must not be SQLite on a network file system, but got {url} on {system}: locks do not hold "
            "there and the file gets corrupted; use a local disk, or PostgreSQL for several hosts",
            field="storage",
        )
    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS, poll_interval=0.01)
    with lock:  # two processes creating the tables at once fail
        _write_ahead(path)
        backend = _rdb(url, {"connect_args": {"timeout": LOCK_SECONDS}}, patience)
        _sync_at_checkpoints(_engine(backend))
    return StudyStorage(url, backend, lambda: _held(lock, patience), patience)


@contextmanager
def _held(lock: FileLock, patience: Patience) -> Iterator[None]:
    with patience.wait_for(lock.acquire):
        yield


def _may_write(path: Path) -> bool:
    files = (path.parent, path, path.with_name(f"{path.name}.lock"))
    return all(os.access(file, os.W_OK) for file in files if file.exists())


def _write_ahead(path: Path) -> None:
    """Readers (a dashboard, `status`) must not block the writer."""
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _sync_at_checkpoints(engine: sqlalchemy.Engine) -> None:
    """Flush the write-ahead log to disk now and then instead of at every commit (8 ms each, dozens a trial).

    The death of a process loses nothing. A power cut may undo the last commits, never tear the file: a result that was
    told lies in the trial's folder and is told again.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def set_mode(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    engine.dispose()  # connections from before would go on as they are


def _engine(backend: BaseStorage) -> sqlalchemy.Engine:
    """Of the RDBStorage under Optuna's cache."""
    engine: sqlalchemy.Engine = vars(backend)["_backend"].engine
    return engine


def file_system(path: Path) -> str:
    """Type of the file system that `path` lies on, e.g. `ext4`; empty when unknown."""
    real = path.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if real.is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""


def _cannot_open(url: str, error: Exception) -> str:
    reason = redact(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    password = _password(url)
    if password:
        reason = reason.replace(password, "***")
    return (
        f"`storage` must be a database URL that can be opened, but got {shown(url)} ({reason}); "
        "use sqlite:////absolute/path/study.db, postgresql://user:password@host/database (extra `postgres`) or "
        "mysql://user:password@host/database (extra `mysql`) with a running server"
    )


def _password(url: str) -> str | None:
    try:
        password = make_url(encoded(url)).password
    except ArgumentError:
        return None
    return None if password is None else str(password)
