"""What cannot be opened is told with the reason, and without the password."""

import sqlite3
from pathlib import Path

import pytest

from qtarget.search.store import storage as module
from qtarget.search.store.storage import file_system, open_storage, sqlite_url
from qtarget.search.study.redaction import redact
from qtarget.spaces.errors import UserError


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url at all", "could not parse"),
        ("nosuchdb://me:secret@host/db", "nosuchdb://me:***@host/db"),
        ("sqlite://", "must outlive the process"),
        ("sqlite:///:memory:", "must outlive the process"),
        ("sqlite:////nowhere/at/all/study.db", "there is no /nowhere/at/all; create it"),
        ("postgresql://me:secret@127.0.0.1:1/db", "me:***@127.0.0.1:1/db"),
        ("mysql+nodriver://me:secret@host/db", "me:***@host/db"),
    ],
)
def test_a_storage_that_cannot_be_opened(url: str, said: str) -> None:
    with pytest.raises(UserError, match="`storage` must") as raised:
        open_storage(url)
    assert said.lower() in str(raised.value).lower()
    assert "secret" not in str(raised.value)
    assert raised.value.field == "storage"


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "file_system", lambda path: "nfs4")
    with pytest.raises(UserError, match=r"network file system, but got .* on nfs4.*PostgreSQL"):
        open_storage(sqlite_url(tmp_path / "study.db"))
    assert not (tmp_path / "study.db").exists()


def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self/status")) == "proc"
    assert file_system(tmp_path / "not there yet") not in ("", "proc")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database" * 100)
    with pytest.raises(UserError, match="not a database"):
        open_storage(sqlite_url(tmp_path / "study.db"))


def test_an_open_write_does_not_block_readers(tmp_path: Path) -> None:
    open_storage(sqlite_url(tmp_path / "study.db"))
    writer = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE version_info SET library_version = 'x'")
    reader = sqlite3.connect(tmp_path / "study.db", timeout=0)
    assert reader.execute("SELECT library_version FROM version_info").fetchone() != ("x",)
    writer.execute("ROLLBACK")
    reader.close()
    writer.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("see mysql+pymysql://a:b:c@h and redis://:p@h", "see mysql+pymysql://a:***@h and redis://:***@h"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("http://host:5000/path", "http://host:5000/path"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
