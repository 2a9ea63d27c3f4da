"""`qtarget check` opens storage and tracking store: what would not be written all night is told in the evening."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import small_config

from qtarget.search.store.storage import open_storage, sqlite_url
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.terminal.reach import reached_storage, reached_tracking
from qtarget.search.tracking.connection import connect
from qtarget.spaces.errors import UserError


def study(base: Path, **changes: Any) -> StudyConfig:
    return parse_study(small_config(**changes) | {"base": str(base)})


def test_what_is_not_there_yet_can_be_made_and_is_not(tmp_path: Path) -> None:
    own = study(tmp_path, storage="sqlite:///own.db", tracking={"uri": "sqlite:///tracked/mlflow.db"})
    for config in (study(tmp_path), own):
        assert reached_storage(config).startswith("sqlite:///") and reached_tracking(config).startswith("sqlite:///")
    assert reached_tracking(study(tmp_path, tracking={"uri": "none"})) == "none"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_there_is_opened(tmp_path: Path) -> None:
    open_storage(sqlite_url(tmp_path / "own.db")).close()
    connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    config = study(tmp_path, storage="sqlite:///own.db", tracking={"uri": "sqlite:///mlflow.db"})
    assert reached_storage(config) == f"sqlite:///{tmp_path}/own.db"
    assert reached_tracking(config) == f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="not a database"):
        reached_tracking(config)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://me:secret@127.0.0.1:9", "Connection refused"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("file:///tmp/mlruns", "sqlite:///mlflow.db"),
        ("ftp://host/x", "unsupported URI"),
        ("postgresql://me:se cret@127.0.0.1:1/db", "onnection"),
        ("mysql+nodriver://me:secret@host/db", "nodriver"),
        ("sqlite:////dev/null/mlflow.db", "/dev/null is no folder"),
    ],
)
def test_a_tracking_store_that_does_not_answer_is_refused_in_time(uri: str, said: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(UserError) as raised:
        reached_tracking(study(tmp_path, tracking={"uri": uri}))
    assert time.monotonic() - begun < 60.0, "MLflow tries for minutes"
    assert raised.value.field == "tracking.uri" and said in str(raised.value)
    assert "secret" not in str(raised.value) and "se cret" not in str(raised.value) and "se%20" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"storage": "postgresql://me:secret@127.0.0.1:1/db"}, "storage"),
        ({"storage": "sqlite:////nowhere/at/all/study.db"}, "storage"),
        ({"folder": "/dev/null/runs"}, "folder"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_refused(changes: dict[str, str], field: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must") as raised:
        reached_storage(study(tmp_path, **changes))
    assert raised.value.field == field and "secret" not in str(raised.value)


def test_a_missing_driver_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UserError, match=r"`tracking\.uri` needs a driver .* pip install 'qtarget\[mysql\]'"):
        reached_tracking(study(tmp_path, tracking={"uri": "mysql://me:secret@host/db"}))


def test_the_command_says_so_before_it_loads_anything(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_config(tracking={"uri": "./mlruns"})))
    command = [sys.executable, "-m", "qtarget", "check", str(tmp_path / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "`tracking.uri` must be a store that answers" in done.stderr
    assert "Loading" not in done.stdout and "Traceback" not in done.stderr
