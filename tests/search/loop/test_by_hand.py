"""What people put into a queue: own designs, points enqueued in Optuna, failed trials once more. Nothing is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console
from scripted_study import Recorder, scripted
from small_study import small_config

from qtarget.search.commands.by_hand import add_design, rerun_trials
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError

QUIET = Console(quiet=True)
Build = Callable[..., StudyConfig]


@pytest.fixture
def ran(scripted_study: Build) -> StudyConfig:
    """A finished study of four trials; trial 3 has crashed too often."""
    config = scripted_study({"3": ["kill"]}, limits={**small_config()["limits"], "retries": 0})
    run_study(config, launch=scripted)
    assert [record.state for record in load_history(config)] == ["complete", "complete", "complete", "failed"]
    return config


@pytest.fixture(scope="module")
def without_teacher(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A finished study of two trials that has only a student."""
    space = {"gamma": {"power": {}}, "residual": {"student": {}}, "training": {"learning_rate": [0.003, 0.03, "log"]}}
    content = small_config(teacher=None, space=space, search={**small_config()["search"], "trials": 2})
    config = parse_study(content | {"base": str(tmp_path_factory.mktemp("without_teacher"))})
    assert run_study(config, launch=scripted).state == "finished"
    return config


def in_optuna(config: StudyConfig) -> optuna.Study:
    return optuna.load_study(study_name=config.study, storage=f"sqlite:///{config.study_folder}/study.db")


def after(config: StudyConfig, *numbers: int) -> list[Any]:
    """Records of some trials after another run."""
    run_study(config, launch=scripted)
    records = {record.number: record for record in load_history(config)}
    return [records[number] for number in numbers]


@pytest.mark.slow
def test_a_point_enqueued_in_optuna_is_run_on_top_of_the_budget(ran: StudyConfig) -> None:
    point = {**in_optuna(ran).trials[2].params, "training.learning_rate": 0.0123}
    in_optuna(ran).enqueue_trial(point)
    in_optuna(ran).enqueue_trial({"training.learning_rate": 0.0234})
    whole, part = after(ran, 4, 5)
    assert (whole.state, whole.parameters) == ("complete", point)
    assert (part.state, part.training) == ("complete", {"learning_rate": 0.0234}), "the sampler draws the rest"
    assert len(load_history(ran.with_trials(2))) == 6
    assert run_study(ran, launch=lambda folder, index: pytest.fail("nothing is left")).state == "finished"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"learning_rate": 0.01}, "`learning_rate` is no parameter of it; known are .*training.learning_rate"),
        ({"training.learning_rate": 5.0}, r"`training.learning_rate` must be in \[0.003, 0.03\], but is 5.0"),
    ],
)
@pytest.mark.slow
def test_a_point_that_the_space_does_not_have_fails_with_the_reason(
    ran: StudyConfig, recorder: Recorder, point: dict[str, float], said: str
) -> None:
    in_optuna(ran).enqueue_trial(point)
    assert run_study(ran, [recorder], launch=scripted).state == "finished", "others go on"
    record = load_history(ran)[-1]
    assert record.state == "failed" and record.failure["kind"] == "user"
    assert re.search(said, record.failure["message"])
    assert recorder.of("TrialEnded")[-1].reason == record.failure["message"]
    assert rerun_trials(ran.study_folder, [], QUIET)["again"] == {"3": 5}, "what cannot be run is not run again"


@pytest.mark.slow
def test_a_smaller_budget_takes_back_no_point_of_others(scripted_study: Build) -> None:
    config = scripted_study({"1": ["bug", "finish"]})
    with pytest.raises(RuntimeError, match="bug in trial"):
        run_study(config, launch=scripted)
    in_optuna(config).enqueue_trial({"training.learning_rate": 0.0123})
    summary = run_study(config, trials=2, launch=scripted)
    assert summary.state == "finished" and summary.counts["complete"] == 3
    assert [record.number for record in load_history(config)] == [0, 1, 4]


@pytest.mark.slow
def test_a_result_that_somebody_put_into_the_storage_is_no_trial(ran: StudyConfig) -> None:
    study = in_optuna(ran)
    third = study.trials[2]
    study.add_trial(optuna.trial.create_trial(params=third.params, distributions=third.distributions, value=0.99))
    summary = run_study(ran, launch=lambda folder, index: pytest.fail("nothing is left"))
    assert len(load_history(ran)) == 4 and summary.winner is not None and summary.winner.score < 0.99


@pytest.mark.slow
def test_an_added_design_runs_before_what_the_sampler_fills(scripted_study: Build, recorder: Recorder) -> None:
    config = scripted_study(search={**small_config()["search"], "trials": 5})

    class Adds(Recorder):
        def on_event(self, event: object) -> None:
            if type(event).__name__ == "TrialStarted" and event.number == 2:  # type: ignore[attr-defined]
                add_design(config.study_folder, "label_smoothing", QUIET, knobs=["lam=0.3"])

    run_study(config, [Adds(), recorder], launch=scripted)
    assert [event.number for event in recorder.of("TrialStarted")] == [0, 1, 2, 5, 3, 4]
    added = load_history(config)[-1]
    assert added.target == presets.get("label_smoothing", lam=0.3) and added.state == "complete"


@pytest.mark.slow
def test_designs_are_added_by_name_file_or_mapping(ran: StudyConfig, tmp_path: Path) -> None:
    folder = ran.study_folder
    named = add_design(folder, "dft", QUIET, training=["learning_rate=0.004"])
    (tmp_path / "design.json").write_text(json.dumps({"target": presets.get("sft").model_dump(mode="json")}))
    filed = add_design(folder, str(tmp_path / "design.json"), QUIET)
    drawn = add_design(folder, "{parameters: {training.learning_rate: 0.005, gamma.power.exponent: 0.25}}", QUIET)
    assert [each["number"] for each in (named, filed, drawn)] == [4, 5, 6]
    assert all(each["inside"] for each in (named, filed, drawn))
    first, second, third = after(ran, 4, 5, 6)
    assert (first.baseline, first.training) == ("dft", {"learning_rate": 0.004})
    assert (second.target, second.same_as) == (presets.get("sft"), 0), "the same gradient is not trained twice"
    assert third.target.gamma.exponent == 0.25 and third.training == {"learning_rate": 0.005}


@pytest.mark.parametrize(
    ("design", "options", "said"),
    [
        ("nonsense", {}, "known objectives are .*sft"),
        ("{knobs: {lam: 1}}", {}, "by one of `preset`, `target` and `parameters`"),
        ("{parameters: {learning_rate: 0.1}}", {}, "`learning_rate` is no parameter of it"),
        ("{parametres: {}}", {}, "did you mean `parameters`"),
        ("label_smoothing", {"knobs": ["lam=-1"]}, "lam"),
        ("sft", {"training": ["lr=0.1"]}, "lr; known are .*learning_rate"),
        ("sft", {"training": ["learning_rate=-1"]}, "greater than 0"),
        ("sft", {"training": ["learning_rate"]}, "must be NAME=VALUE"),
        ("prift", {}, "needs"),
    ],
)
def test_what_a_study_cannot_run_is_not_added(
    without_teacher: StudyConfig, design: str, options: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        add_design(without_teacher.study_folder, design, QUIET, **options)
    assert len(load_history(without_teacher)) == 2


@pytest.mark.slow
def test_a_failed_trial_runs_again_in_its_place(ran: StudyConfig) -> None:
    before = load_history(ran)[3]
    (ran.study_folder / "script.json").write_text("{}")
    assert rerun_trials(ran.study_folder, [], QUIET)["again"] == {"3": 4}
    (again,) = after(ran, 4)
    assert (again.state, again.rerun_of) == ("complete", 3)
    assert (again.target, again.training, again.parameters) == (before.target, before.training, before.parameters)
    assert [record.number for record in load_history(ran)] == [0, 1, 2, 4], "the budget is what it was"
    assert rerun_trials(ran.study_folder, [], QUIET)["again"] == {}


@pytest.mark.parametrize(("number", "said"), [(0, "trial 0 is complete; `qtarget reproduce`"), (9, "no trial 9")])
@pytest.mark.slow
def test_only_what_has_no_score_runs_again(ran: StudyConfig, number: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rerun_trials(ran.study_folder, [number], QUIET)
