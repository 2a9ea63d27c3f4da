"""Opening the store that holds a study's queue: SQLite by default, PostgreSQL or MySQL for several hosts.

Every change of a trial's state happens under one lock a study: SQLite ignores FOR UPDATE (six processes on one file
claim the same trial twice), and Optuna has no compare-and-set for a trial that leaves RUNNING.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from ...spaces.errors import UserError
from ..study.redaction import redact
from .patience import Patience

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
LOCK_SECONDS = 120.0
"""A claim takes milliseconds; whoever waits this long learns that something is stuck."""

Lock = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class StudyStorage:
    """An open store and the lock under which trials change hands."""

    url: str
    backend: BaseStorage
    lock: Lock
    patience: Patience
    """Once open, a full disk or a server that is away makes every call wait."""

    @property
    def shown(self) -> str:
        """The URL with its password hidden, for messages, reports and logs."""
        return redact(self.url)

    def close(self) -> None:
        """Give the connections back; the next use opens new ones."""
        self.backend.remove_session()
        _engine(self.backend).dispose()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"


def open_storage(url: str, lock_name: str = "qtarget") -> StudyStorage:
    """Open the store at `url`, creating its tables once.

    Raises UserError (field `storage`) when the URL cannot be read, the server cannot be reached, or an SQLite file lies
    on a network file system.
    """
    patience = Patience()
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(url, parsed.database, patience)
        backend = _rdb(_with_installed_driver(url), {"pool_pre_ping": True}, patience)
    except UserError:
        raise
    except Exception as error:  # the drivers raise whatever they like; all of it means "cannot be opened"
        raise UserError(_cannot_open(url, error), field="storage") from None
    return StudyStorage(url, backend, _server_lock(backend, lock_name, patience), patience)


def _rdb(url: str, engine_kwargs: dict[str, object], patience: Patience) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.get_storage(patience.guard(RDBStorage(url, engine_kwargs=engine_kwargs)))


def _open_sqlite(url: str, database: str | None, patience: Patience) -> StudyStorage:
    if not database or database == ":memory:":
        raise UserError(
            f"`storage` must outlive the process, but got {url}; name a file: sqlite:////absolute/path/study.db",
            field="storage",
        )
    path = Path(database)
    if not path.parent.is_dir():
        raise UserError(
            f"`storage` must lie in a folder that exists, but got {url} and there is no {path.parent}; create it",
            field="storage",
        )
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


def _with_installed_driver(url: str) -> str:
    """`postgresql://` means psycopg 3, the driver of the `postgres` extra."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def _server_lock(backend: BaseStorage, name: str, patience: Patience) -> Lock:
    """A lock that the database server holds for one connection and frees when that connection dies."""
    engine = _engine(backend)
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    if engine.dialect.name == "postgresql":
        take, give, values = "SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)", {"key": key}
    elif engine.dialect.name in ("mysql", "mariadb"):
        take, give, values = f"SELECT GET_LOCK(:key, {LOCK_SECONDS:.0f})", "SELECT RELEASE_LOCK(:key)", {"key": key}
    else:
        raise ArgumentError(f"no lock for {engine.dialect.name}; use sqlite, postgresql or mysql")

    def taken() -> sqlalchemy.Connection:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if connection.execute(sqlalchemy.text(take), values).scalar() == 0:
                raise TimeoutError(f"not free within {LOCK_SECONDS:.0f} s")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def held() -> Iterator[None]:
        with patience.wait_for(taken) as connection:
            try:
                yield
            finally:
                with suppress(DBAPIError):  # the connection is gone, and the lock with it
                    connection.execute(sqlalchemy.text(give), values)

    return held


def _cannot_open(url: str, error: Exception) -> str:
    reason = redact(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    password = _password(url)
    if password:
        reason = reason.replace(password, "***")
    return (
        f"`storage` must be a database URL that can be opened, but got {redact(url)} ({reason}); "
        "use sqlite:////absolute/path/study.db, or postgresql://user:password@host/database with a running server "
        "(extra `postgres`)"
    )


def _password(url: str) -> str | None:
    try:
        password = make_url(url).password
    except ArgumentError:
        return None
    return None if password is None else str(password)
