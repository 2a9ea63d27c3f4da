"""`qtarget cache` on a small study: built once, what it loses is kept with the study, torn caches are named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_study import write_small_study

from qtarget.search.commands.cache import remove_unused, show, verify_all
from qtarget.search.engine.check import check
from qtarget.search.study.config_file import load_study
from qtarget.search.study.files import BIAS_FILE
from qtarget.search.terminal.tables import show_bias
from qtarget.trainers.teachers.store import read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The study file, and the folders that `cache build --json` reports."""
    study = write_small_study(tmp_path_factory.mktemp("study"), cache={"k": 4}, baselines=["sft", "kd"])
    command = [sys.executable, "-m", "qtarget", "cache", "build", str(study), "--json"]
    environment = {**os.environ, "QTARGET_CACHE": str(study.with_name("root"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "cache      teacher: KL(exact || cached)" in done.stderr
    folders: dict[str, str] = json.loads(done.stdout)
    return study, folders


@pytest.fixture(autouse=True)
def root(built: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = built[0].with_name("root")
    monkeypatch.setenv("QTARGET_CACHE", str(folder))
    return folder


def bias_of(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((load_study(study).study_folder / BIAS_FILE).read_text())
    return found


def test_a_build_makes_a_cache_for_every_model_that_designs_ask(built: tuple[Path, dict[str, str]]) -> None:
    study, folders = built
    assert set(folders) == {"reference", "teacher"}
    for folder in folders.values():
        assert read_manifest(Path(folder)).examples == 80
    assert folders["reference"] != folders["teacher"]
    assert bias_of(study)["roles"].keys() == folders.keys()


def test_the_bias_is_that_of_a_student_on_its_way(built: tuple[Path, dict[str, str]]) -> None:
    study, folders = built
    bias = bias_of(study)
    assert bias["student"] == "the base after 8 steps of plain SFT"
    for role, facts in bias["roles"].items():
        assert facts["cache"] == folders[role]
        assert 0 < facts["kl"] < facts["student_kl"], role
        assert 0 < facts["zero_fill_cosine"] < facts["cosine"] < 1, role
        assert facts["entries_per_token"] == 4
        assert facts["tokens"] > 0


def test_a_check_shows_the_measured_bias_and_measures_other_caches_again(
    built: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    study, _ = built
    before = bias_of(study)
    assert check(load_study(study))["cache_bias"] == before
    text = study.read_text().replace("k: 4", "k: 16")
    study.with_name("wider.yaml").write_text(text)
    after = check(load_study(study.with_name("wider.yaml")))["cache_bias"]
    assert after == bias_of(study)
    assert after["roles"]["teacher"]["kl"] < before["roles"]["teacher"]["kl"]


def test_people_see_a_line_for_each_cache(built: tuple[Path, dict[str, str]]) -> None:
    console = Console(record=True, width=300)
    show_bias(bias_of(built[0]), console)
    lines = console.export_text().splitlines()
    assert [line.split(":")[0].split() for line in lines] == [["cache", "reference"], ["cache", "teacher"]]
    show_bias(None, console)
    assert console.export_text() == ""


def test_a_truncated_shard_is_named_and_unused_caches_go(
    built: tuple[Path, dict[str, str]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QTARGET_CACHE", str(shutil.copytree(root, tmp_path / "root")))
    folder = tmp_path / "root" / Path(built[1]["teacher"]).name
    console = Console(record=True, width=300)
    assert verify_all(console)
    shard = folder / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-8])
    assert not verify_all(console)
    assert f"torn   the teacher cache {folder} is torn" in console.export_text()
    states = {info["folder"]: info["problem"] for info in show(console)}
    assert "must have" in states.pop(str(folder)) and set(states.values()) == {None}
    removed = remove_unused(0.0, console)
    assert set(removed) == {str(folder), *states}
    assert show(console) == []
