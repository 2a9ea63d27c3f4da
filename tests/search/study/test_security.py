"""Passwords stay hidden, data stays data, servers stay at home, and code runs only where it was asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.loop.supervisor import run_study
from qtarget.search.study.failures import Failure
from qtarget.search.study.secrets import printable, redact
from qtarget.trainers.settings import ModelSettings

ROOT = Path(__file__).parents[3]
SOURCES = [path for floor in ("spaces", "trainers", "evaluation", "search") for path in (ROOT / floor).rglob("*.py")]
FORBIDDEN = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "os.system", "yaml.unsafe_load"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.slow
def test_no_source_runs_what_it_reads() -> None:
    """Weights are safetensors, settings are plain YAML, nothing is unpickled and no shell is asked."""
    assert len(SOURCES) > 100
    for path in SOURCES:
        for name, call in calls(path):
            assert name not in FORBIDDEN, f"{path.name} calls {name}"
            named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert named.get("shell", "False") == "False", path.name
            assert named.get("weights_only", "True") == "True", path.name
            assert named.get("trust_remote_code") != "True", path.name
            if name == "yaml.load":
                assert named["Loader"] == "_OneOfEach", path.name


def test_remote_code_is_trusted_only_where_a_study_says_so() -> None:
    assert ModelSettings(path="m").trust_remote_code is False
    assert ModelSettings(path="m", trust_remote_code=True).trust_remote_code is True


@pytest.mark.slow
def test_servers_listen_at_home_only() -> None:
    literals = {
        (path.name, node.value)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::", "*:")
    }
    assert literals == set()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me&password=***"),
        ("at 'mysql://me:se@cret@host/db', again", "at 'mysql://me:***@host/db', again"),
        ("http://host:5000/path", "http://host:5000/path"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_terminals_obey_no_text_that_came_from_data() -> None:
    assert printable("a\x1b[2Jb\x07\r\u202e") == "a\\x1b[2Jb\\x07\\r\\u202e"
    assert printable("two\nlines\tand ü") == "two\nlines\tand ü"
    failure = Failure(kind="bug", message="\x1b]0;title\x07 at http://me:secret@host")
    assert failure.message == "\\x1b]0;title\\x07 at http://me:***@host"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"storage": "postgresql://me:secret@127.0.0.1:1/db"},
        {"tracking": "http://me:secret@host"},
    ],
)
def test_no_message_of_the_command_line_shows_a_password(tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_config(**changes)))
    command = [sys.executable, "-m", "qtarget", "run", str(tmp_path / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "qtarget:" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_listeners_and_storage_see_no_password(scripted_study, recorder: Recorder) -> None:
    tracking = {"uri": "http://me:secret@127.0.0.1:9"}
    config = scripted_study(tracking=tracking, search={**small_config()["search"], "trials": 1})
    run_study(config, [recorder], launch=scripted)
    assert "secret" not in repr(recorder.events)
    files = [path for path in config.study_folder.rglob("*") if path.is_file()]
    telling = {path.name for path in files if b"secret" in path.read_bytes()}
    assert telling == {"study.json"}, "which only its owner may read"
