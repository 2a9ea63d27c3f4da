"""What database servers want: a driver, one lock a study, room for long texts, and to be told from an outage.

A server that is away comes back; a password that is refused does not. Only errors that are known to pass are waited
out, by SQLSTATE for PostgreSQL and by error number for MySQL and MariaDB.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from ...spaces.errors import UserError

log = logging.getLogger(__name__)
LOCK_SECONDS = 120.0
"""A claim takes milliseconds; whoever waits this long learns that something is stuck."""
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql",
           "mariadb": "mariadb+pymysql"}  # fmt: skip
"""Of URLs that name none: those of the extras."""
EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
MYSQL = ("mysql", "mariadb")
LONG_TEXTS = ("value_json", "distribution_json")
"""Optuna's columns of JSON: TEXT, which holds 64 KB on MySQL and anything elsewhere."""
PASSING_STATES = ("08", "53", "57P", "40001", "40P01", "55P03")
"""Starts of SQLSTATE: connection, resources (a full disk, too many connections), shutdown, conflict, lock."""
PASSING_NUMBERS = frozenset({
    1021, 1037, 1038, 1040, 1041, 1047, 1053, 1114, 1135, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1205, 1213, 1226,
    1290, 1317, 1836, 1927, 2002, 2003, 2006, 2013, 2055, 3024, 4031,
})  # fmt: skip
"""MySQL's numbers for the same: full disk or memory, too many connections, shutdown, read-only for a while, network,
deadlock."""
REFUSED_FOR_GOOD = re.compile(
    r"authentication|password|pg_hba|does not exist|permission denied|not permitted|could not translate host"
)
"""What PostgreSQL says, without an SQLSTATE, when it answers and lets nobody in."""

Taken = Callable[[], sqlalchemy.Connection]


def with_driver(url: str) -> str:
    """`postgresql://` means psycopg 3, `mysql://` and `mariadb://` mean PyMySQL: the drivers of the extras."""
    scheme, separator, rest = url.partition("://")
    return f"{DRIVERS.get(scheme, scheme)}{separator}{rest}"


def require_driver(url: str, field: str) -> None:
    """Raises UserError, with the extra to install, when the driver that `url` names is not there."""
    parsed = make_url(url)
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        extra = EXTRAS.get(parsed.get_backend_name())
        remedy = f"pip install 'qtarget[{extra}]'" if extra else "install it"
        raise UserError(
            f"`{field}` needs a driver for {parsed.get_backend_name()} that is not installed ({error}); {remedy}",
            field=field,
        ) from None


def passes(error: DBAPIError) -> bool:
    """Whether what a server, or the way to it, has answered may pass by itself."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(PASSING_STATES)
    number = next(iter(getattr(error.orig, "args", ())), None)
    if isinstance(number, int):
        return number == 0 or number in PASSING_NUMBERS  # 0: PyMySQL's connection is gone
    return REFUSED_FOR_GOOD.search(str(error.orig)) is None


class ServerLock:
    """A lock that the server holds for one connection and frees when that connection dies."""

    def __init__(self, engine: sqlalchemy.Engine, name: str) -> None:
        self._engine = engine
        digest = hashlib.sha256(name.encode()).digest()
        if engine.dialect.name == "postgresql":
            key: int | str = int.from_bytes(digest[:8], "big", signed=True)
            self._take, self._give = "SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"
        elif engine.dialect.name in MYSQL:  # whose locks are strings of all databases of the server
            key = hashlib.sha256(f"{engine.url.database}/{name}".encode()).hexdigest()[:40]
            self._take, self._give = f"SELECT GET_LOCK(:key, {LOCK_SECONDS:.0f})", "SELECT RELEASE_LOCK(:key)"
        else:
            raise ArgumentError(f"no lock for {engine.dialect.name}; use sqlite, postgresql or mysql")
        self._values = {"key": key}

    def taken(self) -> sqlalchemy.Connection:
        """The connection that holds it. Raises TimeoutError when another one held it for too long."""
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            answer = connection.execute(sqlalchemy.text(self._take), self._values).scalar()
            if self._engine.dialect.name in MYSQL and answer != 1:
                raise TimeoutError(f"not free within {LOCK_SECONDS:.0f} s")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def held(self, wait_for: Callable[[Taken], sqlalchemy.Connection]) -> Iterator[None]:
        """Inside, it is ours; `wait_for` takes it, and tries again as it sees fit."""
        with wait_for(self.taken) as connection:
            try:
                yield
            finally:
                with suppress(DBAPIError):  # the connection is gone, and the lock with it
                    connection.execute(sqlalchemy.text(self._give), self._values)


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Nobody else makes tables in a database meanwhile: of two who do at once, one fails."""
    engine = sqlalchemy.create_engine(url)
    try:
        with ServerLock(engine, "tables").held(lambda take: take()):
            yield
    finally:
        engine.dispose()


def prepare(engine: sqlalchemy.Engine) -> None:
    """Let a MySQL or MariaDB hold texts of any length and tell all names apart, and refuse what it would cut off."""
    if engine.dialect.name not in MYSQL:
        return

    @sqlalchemy.event.listens_for(engine, "connect")
    def be_strict(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')")

    engine.dispose()  # connections from before would go on as they are
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SET SESSION lock_wait_timeout = 60"))
            for change in _changes(connection):
                connection.execute(sqlalchemy.text(change))
    except DBAPIError as error:
        log.warning("the database could not be told to keep long texts, and to tell upper case apart: %s", error.orig)


def _changes(connection: sqlalchemy.Connection) -> Iterator[str]:
    """What is to change in tables as Optuna makes them; nothing where it has been changed."""
    columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    for table, column in connection.execute(sqlalchemy.text(f"{columns} AND data_type = 'text'")).all():
        if column in LONG_TEXTS:
            yield f"ALTER TABLE `{table}` MODIFY `{column}` MEDIUMTEXT"
    ours = "table_name = 'studies' AND column_name = 'study_name' AND collation_name NOT LIKE '%\\_bin'"
    if connection.execute(sqlalchemy.text(f"{columns} AND {ours}")).all():
        text = "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
        yield f"ALTER TABLE studies MODIFY study_name {text}"
