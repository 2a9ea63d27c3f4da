"""Secrets stay outside of study files and command lines, whatever characters they have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from small_study import small_config
from sqlalchemy.engine import make_url

from qtarget.search.store.study import storage_url
from qtarget.search.study.config_file import load_study, parse_study, write_folder
from qtarget.search.study.secrets import filled, redact, with_password_file
from qtarget.search.tracking.address import tracking_uri
from qtarget.spaces.errors import UserError

SECRET = "p@ss:w/rd #%?&+ü"


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    file = tmp_path / "a secret"
    file.write_text(f"{SECRET}\nnot this\n")
    return file


def test_a_password_comes_from_a_variable_or_a_file(secret_file: Path) -> None:
    for reference in ("${DB_PASSWORD}", f"${{file:{secret_file}}}"):
        url = make_url(filled(f"postgresql://me:{reference}@host:5432/db", "storage"))
        assert (url.username, url.password, url.host, url.database) == ("me", SECRET, "host", "db")
        url = make_url(filled(f"postgresql://me@host/db?password={reference}", "storage"))
        assert url.query["password"] == SECRET


def test_a_whole_address_and_an_sqlite_path_may_be_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL", "postgresql://me@host/db")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    assert filled("${URL}", "storage") == "postgresql://me@host/db"
    assert filled("sqlite:///$SCRATCH/a.db", "storage") == f"sqlite:///{tmp_path}/a.db"
    assert filled("postgresql://me:a$b@host/db", "storage") == "postgresql://me:a$b@host/db"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("${NOWHERE}", "NOWHERE is not set here"),
        ("${file:/no/where}", "/no/where, but that cannot be read"),
        ("${a b}", r"may refer to \$\{NAME\} or \$\{file:PATH\}"),
    ],
)
def test_what_is_not_there_is_named(reference: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        filled(f"postgresql://me:{reference}@host/db", "storage")
    assert raised.value.field == "storage"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="its first line is empty"):
        filled(f"postgresql://me:${{file:{tmp_path}/empty}}@host/db", "storage")


def test_the_study_keeps_what_was_written_and_never_the_secret(secret_file: Path, tmp_path: Path) -> None:
    written = {
        "storage": "postgresql://me:${DB_PASSWORD}@host/db",
        "tracking": {"uri": "http://me:${DB_PASSWORD}@host"},
    }
    config = parse_study(small_config(**written) | {"base": str(tmp_path)})
    assert make_url(storage_url(config)).password == SECRET and SECRET not in repr(config)
    assert make_url(tracking_uri(config)).password == SECRET
    write_folder(config)
    kept = json.loads((config.study_folder / "study.json").read_text())
    assert (kept["storage"], kept["tracking"]["uri"]) == (written["storage"], written["tracking"]["uri"])
    assert redact(storage_url(config)) == "postgresql://me:***@host/db"
    assert redact(written["storage"]) == written["storage"], "joiners need to know what to look up"


def test_join_takes_the_password_from_a_file(secret_file: Path) -> None:
    address = with_password_file("postgresql://me@host/db", secret_file)
    assert SECRET not in address and make_url(filled(address, "STORAGE_URL")).password == SECRET
    for refused in ("postgresql://host/db", "postgresql://me:known@host/db"):
        with pytest.raises(UserError, match="a user and without a password"):
            with_password_file(refused, secret_file)


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, "http://from-variable"), ({}, "http://from-variable"), ({"uri": "none"}, "none"), ({"uri": "x"}, "x")],
)
def test_mlflows_own_variable_is_the_default(tmp_path: Path, monkeypatch, given: object, found: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-variable")
    config = small_config() | ({} if given is None else {"tracking": given})
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    loaded = load_study(tmp_path / "study.yaml")
    assert loaded.tracking.uri == found
    write_folder(loaded)
    del os.environ["MLFLOW_TRACKING_URI"]
    assert load_study(tmp_path / "study.yaml").tracking.uri == (None if "variable" in found else found)
