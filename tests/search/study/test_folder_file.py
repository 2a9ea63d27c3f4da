"""A folder knows itself by where it is: copied, moved or mounted elsewhere, and worked on from several hosts."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.export.choice import choose
from qtarget.search.loop.confirm import stored_verdict
from qtarget.search.loop.supervisor import join_study, run_study
from qtarget.search.store.history import load_history
from qtarget.search.study import folder_file
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import find_study, load_study, parse_study, read_folder, write_folder
from qtarget.spaces.errors import UserError

Build = Callable[..., StudyConfig]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its data and a finished study in runs/small."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.jsonl").write_text("{}\n")
    config = parse_study(small_config() | {"base": str(root)})
    config.study_folder.mkdir(parents=True)
    (config.study_folder / "script.json").write_text("{}")
    run_study(config, launch=scripted)
    return root


@pytest.mark.slow
def test_a_copied_project_is_another_study(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    run_study(read_folder(project / "runs" / "small"), trials=6, launch=scripted)
    there = read_folder(copy / "runs" / "small")
    assert (there.base_folder, there.study_folder) == (copy, copy / "runs" / "small")
    records = load_history(copy / "runs" / "small")
    assert len(records) == 4 and {record.folder.parent for record in records} == {copy / "runs" / "small" / "trials"}
    run_study(there, trials=5, launch=scripted)
    assert (len(load_history(copy / "runs" / "small")), len(load_history(project / "runs" / "small"))) == (5, 6)


def test_a_moved_project_and_a_moved_folder_go_on(project: Path, tmp_path: Path) -> None:
    moved = project.rename(tmp_path / "moved")
    config = find_study(moved / "runs" / "small")
    assert config.base_folder == moved and choose(config, load_history(config), unconfirmed=True).record is not None
    away = tmp_path / "archive" / "first-try"
    away.parent.mkdir()
    shutil.move(moved / "runs" / "small", away)
    config = find_study(away)
    assert (config.study_folder, config.base_folder) == (away, project), "the data stayed where it was known to be"
    assert len(load_history(away)) == 4
    assert stored_verdict(config) is None


def test_a_folder_with_the_data_beside_it_starts_its_paths_there(tmp_path: Path) -> None:
    config = parse_study(small_config() | {"base": str(tmp_path / "a")})
    write_folder(config)
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    (tmp_path / "a" / "train.jsonl").write_text("{}\n")
    (tmp_path / "b" / "train.jsonl").write_text("{}\n")
    assert read_folder(tmp_path / "b" / "runs" / "small").base_folder == tmp_path / "b"
    assert read_folder(tmp_path / "c" / "runs" / "small").base_folder == tmp_path / "a"


@pytest.mark.parametrize("inside", ["runs/small/own.db", "own.db"])
def test_a_database_that_lay_in_the_folder_moved_with_it(tmp_path: Path, inside: str) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    write_folder(parse_study(small_config(storage=f"sqlite:///{before / inside}") | {"base": str(before)}))
    (before / inside).write_text("")
    (before / "train.jsonl").write_text("{}\n")
    shutil.copytree(before, after)
    assert read_folder(after / "runs" / "small").storage == f"sqlite:///{after / inside}"


@pytest.mark.slow
def test_a_joiner_under_another_mount_takes_nothing_away(project: Path, tmp_path: Path, recorder: Recorder) -> None:
    folder = project / "runs" / "small"
    (folder / "script.json").write_text(json.dumps({"4": ["wait", "finish"]}))

    class Stop(Recorder):
        def on_event(self, event: Any) -> None:
            if type(event).__name__ == "StepDone" and event.number == 4:
                os.kill(os.getpid(), signal.SIGINT)

    config = read_folder(folder)
    assert run_study(config, [Stop()], trials=6, launch=scripted).state == "stopped"
    mount, kept = tmp_path / "mount", (folder / "study.json").read_bytes()
    mount.symlink_to(project, target_is_directory=True)
    joined = join_study(f"sqlite:///{folder}/study.db", "small", [recorder], base=mount, launch=scripted)
    assert joined.state == "finished" and Path(joined.folder) == mount / "runs" / "small"
    assert (folder / "study.json").read_bytes() == kept
    assert read_folder(folder) == config.with_trials(6)


def test_what_differs_on_a_host_stays_on_that_host(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = read_folder(project / "runs" / "small").model_copy(
        update={"base": "/elsewhere", "folder": str(project / "runs" / "small"), "storage": "postgresql://me@other/db"}
    )
    kept = (project / "runs" / "small" / "study.json").read_bytes()
    monkeypatch.setattr(folder_file.socket, "gethostname", lambda: "second")
    folder_file.write_host(other)
    assert read_folder(other.study_folder).storage == "postgresql://me@other/db"
    assert read_folder(other.study_folder).base == "/elsewhere"
    monkeypatch.setattr(folder_file.socket, "gethostname", lambda: "first")
    assert read_folder(other.study_folder).storage is None
    assert (project / "runs" / "small" / "study.json").read_bytes() == kept


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    write_folder(parse_study(small_config(base=str(tmp_path))))
    file = tmp_path / "runs" / "small" / "study.json"
    file.write_text("{ torn")
    with pytest.raises(UserError, match=r"study\.json must be readable"):
        read_folder(file.parent)
    file.write_text('{"study": "small"}')
    with pytest.raises(UserError, match=r"study\.json: `model` must be given"):
        read_folder(file.parent)


def test_paths_name_home_and_variables_and_each_host_fills_them_in(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(small_config(folder="$SCRATCH/runs", storage="sqlite:///~/q.db"))
    )
    config = load_study(tmp_path / "study.yaml")
    assert config.study_folder == tmp_path / "scratch" / "runs"
    write_folder(config)
    assert json.loads((config.study_folder / "study.json").read_text())["folder"] == "$SCRATCH/runs"
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(UserError, match=r"`folder` may only name variables that are set, .* SCRATCH is not set here"):
        _ = config.study_folder
    assert read_folder(tmp_path / "scratch" / "runs").study_folder == tmp_path / "scratch" / "runs"
