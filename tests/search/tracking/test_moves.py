"""A study's runs in MLflow after its folder was moved, copied or mounted elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console
from scripted_study import scripted
from small_study import small_config

from qtarget.search.campaign.session import listeners
from qtarget.search.export.tracking import study_run
from qtarget.search.loop.supervisor import run_study
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study, read_folder, write_folder
from qtarget.search.tracking.address import run_key, study_place, tracking_uri
from qtarget.search.tracking.connection import connect


def study_key(config: StudyConfig) -> str:
    """Of a study without an identity: only where it is kept tells its runs from others'."""
    return run_key(config.study, study_place(config), None)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose study of one trial is tracked in its own folder."""
    root = tmp_path_factory.mktemp("tracked") / "project"
    search = {**small_config()["search"], "trials": 1}
    config = parse_study(small_config(search=search) | {"base": str(root)})
    config.study_folder.mkdir(parents=True)
    (root / "train.jsonl").write_text("{}\n")
    run_study(config, listeners(config, Console(quiet=True)), launch=scripted)
    return root


@pytest.mark.parametrize("how", ["moved", "copied"])
@pytest.mark.slow
def test_runs_go_on_where_the_folder_is(tracked: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(tracked, tmp_path / "project")
    if how == "moved":  # the key file says where it was
        key_file = tmp_path / "project" / "runs" / "small" / "tracking_key.json"
        key_file.write_text(key_file.read_text().replace('"folder": "', '"folder": "/gone'))
    config = read_folder(tmp_path / "project" / "runs" / "small")
    run_study(config, listeners(config, Console(quiet=True)), trials=2, launch=scripted)
    client = connect(tracking_uri(config), config.study_folder)
    runs = [run for each in client.search_experiments() for run in client.search_runs([each.experiment_id])]
    assert sorted(run.data.tags["qtarget.trial"] for run in runs) == ["0", "1", "study"], "no second parent"
    here = (config.study_folder / "mlartifacts").as_uri()
    assert all(run.info.artifact_uri.startswith(here) for run in runs)
    run = study_run(client, config)
    assert run in {each.info.run_id for each in runs}
    if how == "moved":  # MLflow remembers for a process where a run's artifacts are
        (tmp_path / "note.txt").write_text("kept")
        client.log_artifact(run, str(tmp_path / "note.txt"))
        assert list(config.study_folder.rglob("note.txt")) and not list(tracked.rglob("note.txt"))


def test_a_copy_has_runs_of_its_own_in_a_store_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/shared.db"
    config = parse_study(small_config(tracking={"uri": uri}) | {"base": str(tmp_path / "a")})
    write_folder(config)
    key = study_key(config)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "mount").symlink_to(tmp_path / "a", target_is_directory=True)
    for name in ("a", "b", "mount"):
        again = config.model_copy(update={"base": str(tmp_path / name)})
        assert (study_key(again) == key) == (name != "b")
    shutil.move(tmp_path / "a", tmp_path / "c")
    assert study_key(config.model_copy(update={"base": str(tmp_path / "c")})) == key


def test_a_study_that_was_moved_before_it_knew_its_key_has_the_old_one(tracked: Path, tmp_path: Path) -> None:
    shutil.copytree(tracked, tmp_path / "project")
    folder = tmp_path / "project" / "runs" / "small"
    (folder / "tracking_key.json").unlink()
    assert study_key(read_folder(folder)) == f"small@{tracked.resolve()}/runs/small", "its store is a copy, too"
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert client.search_experiments()
