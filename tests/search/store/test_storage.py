"""What cannot be opened is told with the reason, and without the password."""

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from small_study import small_config

from qtarget.search.store import storage as module
from qtarget.search.store.storage import file_system, open_storage, sqlite_path, sqlite_url
from qtarget.search.store.study import storage_url
from qtarget.search.study.config_file import parse_study
from qtarget.search.study.secrets import redact
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


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("mysql://me:secret@host/db", "pymysql", "mysql"),
        ("mariadb://me:secret@host/db", "pymysql", "mysql"),
        ("mysql+mysqldb://me:secret@host/db", "MySQLdb", "mysql"),
        ("postgresql://me:secret@host/db", "psycopg", "postgres"),
    ],
)
def test_a_missing_driver_is_named_with_its_extra(url: str, module: str, extra: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'qtarget\[{extra}\]'") as raised:
        open_storage(url)
    assert raised.value.field == "storage" and "secret" not in str(raised.value)


NAMES = ("w? {x} 50% [b]#ü", "a%20b", "plain", "q?uri=true", "{study}", "%(here)s")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / "study.db"
    assert sqlite_path(sqlite_url(path)) == path
    with closing(open_storage(sqlite_url(path), "night")) as storage, storage.lock():
        optuna.create_study(study_name="night", storage=storage.backend)
    assert path.stat().st_size > 0 and {file.name[:8] for file in path.parent.iterdir()} == {"study.db"}


@pytest.mark.parametrize("name", ["50%", "[b] {x}", "q?x"])
def test_a_plain_path_is_what_it_says(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    config = parse_study(small_config(storage=f"sqlite:///{name}/own.db") | {"base": str(tmp_path)})
    assert sqlite_path(storage_url(config)) == tmp_path / name / "own.db"
    config = parse_study(small_config(storage=f"sqlite:///{tmp_path}/{name}/own.db"))
    assert sqlite_path(storage_url(config)) == tmp_path / name / "own.db"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A database on a mount where nothing can be written; its last change is not merged into the file yet."""
    folder = tmp_path / "mount"
    folder.mkdir()
    storage = open_storage(sqlite_url(folder / "study.db"))
    optuna.create_study(study_name="night", storage=storage.backend)
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True)
    if bound.returncode:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    yield folder / "study.db"
    subprocess.run(["umount", "-l", str(folder)], check=True)
    storage.close()


def test_what_may_not_be_written_can_be_read(read_only: Path) -> None:
    with pytest.raises(UserError, match="`storage` must be writable"):
        open_storage(sqlite_url(read_only))
    before = set(Path(tempfile.gettempdir()).glob("qtarget-copy-*"))
    with closing(open_storage(sqlite_url(read_only), reading=True)) as storage:
        assert [study.study_name for study in storage.backend.get_all_studies()] == ["night"]
    assert set(Path(tempfile.gettempdir()).glob("qtarget-copy-*")) == before


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


@pytest.mark.slow
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
