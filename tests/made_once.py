"""What many tests begin with, made once for all workers and copied: MLflow's tables, studies with scripted engines.

MLflow's migrations take two seconds for every new store, a confirmed study three.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

PLACE = "QTARGET_TESTS_TABLES"
"""Variable that names the file to keep the tables in; other things lie beside it."""


def folder(name: str, make: Callable[[Path], object], root: Path) -> None:
    """What `make` writes into a folder, in `root`."""
    place = Path(os.environ[PLACE]).with_name(name)
    with FileLock(f"{place}.lock"):
        if not place.exists():
            partial = place.with_suffix(".part")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.replace(place)
    shutil.copytree(place, root, dirs_exist_ok=True)


def read_once() -> None:
    """Optuna's migrations, which it reads again whenever a storage is opened: a tenth of a small study."""
    from optuna.storages._rdb.storage import _VersionManager

    read, known = _VersionManager._create_alembic_script, []
    if read.__name__ == "known_script":
        return

    def known_script(manager: Any) -> Any:
        if not known:
            known.append(read(manager))
        return known[0]

    _VersionManager._create_alembic_script = known_script


def install() -> None:
    """A new SQLite store of this process begins as a copy, where the variable is set."""
    from mlflow.store.db import utils

    place, make = os.environ.get(PLACE), utils._initialize_tables
    if place is None or make.__name__ == "copy":
        return

    def copy(engine: Any) -> None:
        if engine.dialect.name != "sqlite" or not engine.url.database:
            make(engine)
            return
        with closing(sqlite3.connect(_made(Path(place), make))) as made, closing(engine.raw_connection()) as new:
            made.backup(new.driver_connection)

    utils._initialize_tables = copy


def _made(place: Path, make: Any) -> Path:
    from sqlalchemy import create_engine

    with FileLock(f"{place}.lock"):
        if not place.exists():
            partial = place.with_suffix(".part")
            engine = create_engine(f"sqlite:///{partial}")
            make(engine)
            engine.dispose()
            partial.replace(place)
    return place
