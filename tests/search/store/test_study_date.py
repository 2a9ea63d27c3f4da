"""A study has one date: given or today's, kept in its storage and folder, whatever today is when it goes on."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from small_study import small_config

from qtarget.search.loop.confirm import confirmation_config
from qtarget.search.store.study import Study, joined_config, open_study, storage_url
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import FOLDER_FILE, find_study, load_study
from qtarget.search.study.parts import Candidate
from qtarget.spaces import TargetSpec
from qtarget.spaces.errors import UserError

DAY = datetime.date(2024, 2, 9)


def write(folder: Path, **changes: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(small_config(**changes)))
    return path


def created(path: Path) -> Study:
    study = open_study(load_study(path))
    with closing(study.storage):
        study.create({"data": "x"})
    return study


def test_a_study_keeps_the_date_it_was_given(tmp_path: Path) -> None:
    assert created(write(tmp_path, date=DAY)).config.date == DAY
    path = write(tmp_path)
    assert load_study(path).date == DAY, "check and reproduce read the file"
    assert find_study(tmp_path / "runs" / "small").date == DAY, "engines read the folder"
    with closing((again := open_study(load_study(path))).storage):
        assert again.config.date == DAY


def test_the_storage_knows_it_where_the_folder_is_gone(tmp_path: Path) -> None:
    config = created(write(tmp_path, date=DAY)).config
    (config.study_folder / FOLDER_FILE).unlink()
    with closing((again := open_study(load_study(write(tmp_path)))).storage):
        assert again.config.date == DAY
    assert joined_config(storage_url(config), "small").date == DAY


def test_without_one_it_is_the_day_of_its_creation(tmp_path: Path) -> None:
    before = datetime.date.today()
    found = created(write(tmp_path)).config.date
    assert found is not None and before <= found <= datetime.date.today()


def test_another_date_is_refused(tmp_path: Path) -> None:
    created(write(tmp_path, date=DAY))
    with pytest.raises(UserError, match="`date` is '2024-02-10', was '2024-02-09'"):
        open_study(load_study(write(tmp_path, date=DAY + datetime.timedelta(days=1))))


def test_a_confirmation_has_the_date_of_its_search(tmp_path: Path, scripted_study: Callable[..., StudyConfig]) -> None:
    evaluation = {**small_config()["evaluation"], "report_problems": 4}
    path = write(tmp_path, evaluation=evaluation)
    loaded = load_study(path)
    created(write(tmp_path, evaluation=evaluation, date=DAY))
    assert loaded.date is None
    assert confirmation_config(loaded, (Candidate(title="sft", target=TargetSpec()),)).date == DAY
