"""What a resumed study may change, and how it is told what it may not."""

import os

import pytest
from small_study import small_config

from qtarget.search.study.config_file import parse_study
from qtarget.search.study.files import read_json, write_json
from qtarget.search.study.resume import compare, refuse_changes, refuse_other_inputs
from qtarget.search.study.trial import TrialFolder
from qtarget.spaces.errors import UserError

STORED = parse_study(small_config()).model_dump(mode="json")


def test_equal_configurations_have_no_changes() -> None:
    assert compare(STORED, parse_study(small_config())) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {**small_config()["search"], "trials": 9, "sampler": "random"}},
        {"storage": "sqlite:////elsewhere.db"},
        {"tracking": {"uri": "none"}},
        {"limits": {"retries": 7}},
        {"full_steps": 1000},
        {"evaluation": {**small_config()["evaluation"], "batch_size": 2}},
        {"training": {**small_config()["training"], "micro_batch": 4, "checkpoint_every": 1}},
    ],
)
def test_what_decides_no_trial_may_change(changes) -> None:
    new = parse_study(small_config(**changes))
    assert compare(STORED, new) and all(change.free for change in compare(STORED, new))
    refuse_changes(STORED, new)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training": {**small_config()["training"], "steps": 9}}, "training.steps"),
        ({"search": {**small_config()["search"], "seed": 1}}, "search.seed"),
        ({"model": {"path": "other"}}, "model.path"),
        ({"baselines": ["sft"]}, "baselines[1]"),
        ({"evaluation": {**small_config()["evaluation"], "problems": 8}}, "evaluation.problems"),
    ],
)
def test_what_decides_trials_may_not(changes, field: str) -> None:
    with pytest.raises(UserError, match=r"Free to change: search\.trials") as raised:
        refuse_changes(STORED, parse_study(small_config(**changes)))
    assert raised.value.field == field
    assert f"`{field}`" in str(raised.value)


def test_a_study_from_before_system_messages_may_ask_for_none() -> None:
    before = parse_study(small_config()).model_dump(mode="json")
    del before["evaluation"]["tasks"][0]["system"]
    tasks = [{**small_config()["evaluation"]["tasks"][0], "system": "none"}]
    new = parse_study(small_config(evaluation={**small_config()["evaluation"], "tasks": tasks}))
    assert compare(before, new) == []
    assert [change.field for change in compare(STORED, new)] == ["evaluation.tasks[0].system"]


def test_other_inputs_are_refused_by_name() -> None:
    refuse_other_inputs({"data": "a" * 64}, {"data": "a" * 64}, "small")
    with pytest.raises(UserError, match="data has fingerprint bbbbbbbbbbbb, was aaaaaaaaaaaa"):
        refuse_other_inputs({"data": "a" * 64, "model": "c"}, {"data": "b" * 64, "model": "c"}, "small")


def test_metrics_are_cut_where_a_trial_goes_on_and_a_torn_tail_is_kept(tmp_path) -> None:
    folder = TrialFolder(tmp_path)
    torn = '{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st'
    folder.metrics.write_text(torn)
    folder.cut_metrics(3)
    assert folder.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert (tmp_path / "metrics.jsonl.torn-1").read_text() == torn
    folder.cut_metrics(2)
    assert folder.metrics.read_text() == '{"step": 1}\n'
    assert not (tmp_path / "metrics.jsonl.torn-2").exists(), "there was no torn tail"


def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"score": 1})
    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"score": 2})
    assert read_json(path) == {"score": 1}


def die(descriptor: int) -> None:
    raise KeyboardInterrupt
