"""A copy of an SQLite file that may be read and not written: SQLite itself wants to write beside what it reads."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

TRIES = 3
"""Whoever may write it does so while it is copied."""


class Copy:
    """The whole content of a database at one moment, in a folder of its own until it is removed."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when `path` may not be read either, sqlite3.Error when it cannot be copied whole."""
        self._folder = Path(tempfile.mkdtemp(prefix="qtarget-copy-"))
        self.path = self._folder / "study.db"
        try:
            _copy(path, self.path)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """By SQLite's own means where it can open the file to read; else file by file, with what is not merged yet."""
    with suppress(sqlite3.OperationalError):
        _back_up(f"file:{quote(str(source.absolute()))}?mode=ro", target)
        return
    for left in range(TRIES - 1, -1, -1):
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{source}{suffix}", f"{target}{suffix}")
        try:
            with closing(sqlite3.connect(target)) as copied:
                if copied.execute("PRAGMA quick_check").fetchone() == ("ok",):
                    return
        except sqlite3.DatabaseError:
            if not left:
                raise
    raise sqlite3.DatabaseError(f"{source} changes too fast to be copied")


def _back_up(source: str, target: Path) -> None:
    with closing(sqlite3.connect(source, uri=True)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)
