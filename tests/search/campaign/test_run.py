"""Campaigns: many pairs in one file, one budget in equal shares, resumed from the studies alone."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_study import SHORT, confirm, search
from rich.console import Console
from scripted_study import scripted
from small_study import small_config

from qtarget.search.campaign.budget import Limits, SharedBudget
from qtarget.search.campaign.run import CampaignRun, campaign_status, rounds
from qtarget.search.campaign.status import standing_of
from qtarget.search.loop.budget import AROUND_SECONDS, confirmation_cost
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.campaign_config import is_campaign, load_campaign, shares
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import load_study
from qtarget.spaces.errors import UserError

MATRIX = {
    "models": {"small": {"model": {"path": "small"}}, "large": {"model": {"path": "large"}, "teacher": None}},
    "data": {
        "words": {"data": {"path": "words.jsonl"}},
        "sums": {"data": {"path": "sums.jsonl", "max_length": 128}, "training": {"learning_rate": 0.02}},
    },
}


def write_campaign(root: Path, matrix: Any = MATRIX, **changes: Any) -> Path:
    config = small_config(tracking={"uri": "none"}, baselines=["sft", "dft"])
    path = root / "campaign.yaml"
    path.write_text(yaml.safe_dump(config | {"study": "words", "matrix": matrix} | changes, sort_keys=False))
    return path


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def run(path: Path, console: Console, hours: float | None = None, trials: int | None = None) -> dict[str, Any]:
    campaign = load_campaign([path])
    return CampaignRun(campaign, console, hours=hours, launch=scripted).through(shares(campaign, trials))


def test_every_pair_is_a_study_of_its_own(tmp_path: Path) -> None:
    campaign = load_campaign([write_campaign(tmp_path)])
    names = ["words.small.words", "words.small.sums", "words.large.words", "words.large.sums"]
    assert [study.study for study in campaign.studies] == names
    last = campaign.studies[-1]
    assert (last.model.path, last.teacher, last.data.path, last.data.max_length) == ("large", None, "sums.jsonl", 128)
    assert last.training.learning_rate == 0.02 and last.training.steps == 8, "an entry is laid over the common part"
    assert last.study_folder == tmp_path / "runs" / "words.large.sums"
    assert campaign.studies[0].data.max_length == 64 and campaign.studies[0].teacher is not None


def test_only_a_file_with_a_matrix_is_a_campaign(tmp_path: Path) -> None:
    path = write_campaign(tmp_path)
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(small_config()))
    assert is_campaign(path) and not is_campaign(plain) and not is_campaign(tmp_path)
    both = load_campaign([plain, path])
    assert (both.name, len(both.studies)) == ("small + words", 5)
    with pytest.raises(UserError, match="is a campaign of several"):
        load_study(path)


@pytest.mark.parametrize(
    ("matrix", "field", "message"),
    [
        ({"models": {"a": {"modle": {"path": "x"}}}}, "matrix.models.a.modle", "did you mean `model`"),
        ({"models": {"a": {"data": {"paht": "x"}}}}, "matrix.models.a.data.paht", "did you mean `path`"),
        ({"models": {"a": {"training": {"steps": 0}}}}, "matrix.models.a.training.steps", "greater than or equal to 1"),
        ({"models": {"a": {"study": "mine"}}}, "matrix.models.a.study", "keys that differ between pairs"),
        ({"models": {}}, "matrix.models", "at least 1 item"),
        ({"models": ["a"]}, "matrix.models", "valid dictionary"),
        ({"models": {"a/b": {}}}, "study", "pattern"),
    ],
)
def test_a_fault_in_the_matrix_is_found_with_its_path(tmp_path: Path, matrix: Any, field: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_campaign([write_campaign(tmp_path, matrix)])
    assert refused.value.field == field


def test_a_fault_in_the_budget_or_the_common_part_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`budget.trails` must be a known key, but is not; did you mean `trials`"):
        load_campaign([write_campaign(tmp_path, budget={"trails": 8})])
    with pytest.raises(UserError, match="`trainig` must be a known key") as refused:
        load_campaign([write_campaign(tmp_path, trainig={})])
    assert refused.value.field == "trainig"
    with pytest.raises(UserError, match="a folder each, but"):
        load_campaign([write_campaign(tmp_path, folder="runs/one")])
    path = write_campaign(tmp_path)
    with pytest.raises(UserError, match=r"a study each, but 'words\.small\.words' comes twice"):
        load_campaign([path, path])


def test_trials_are_shared_equally_and_in_rounds(tmp_path: Path) -> None:
    campaign = load_campaign([write_campaign(tmp_path, budget={"trials": 14, "slice": 2})])
    parts = shares(campaign)
    assert list(parts.values()) == [4, 4, 3, 3]
    assert [list(goals.values()) for goals in rounds(parts, 2)] == [[2, 2, 2, 2], [4, 4, 3, 3]]
    assert list(shares(campaign, 9).values()) == [3, 2, 2, 2]
    with pytest.raises(UserError, match="at least one a study, but got 3 for 4"):
        shares(campaign, 3)
    own = load_campaign([write_campaign(tmp_path)])
    assert set(shares(own).values()) == {4}, "without a budget each study has its own"


@pytest.mark.slow
def test_a_campaign_searches_all_pairs_in_turn_and_resumes_from_its_studies(tmp_path: Path, quiet: Console) -> None:
    matrix = {"data": {name: {"data": {"path": f"{name}.jsonl"}} for name in ("a", "b")}}
    path = write_campaign(tmp_path, matrix, budget={"trials": 7, "slice": 2})
    first, second = load_campaign([path]).studies
    spent = run(path, quiet, hours=1e-9)
    assert spent["state"] == "stopped"
    assert [each["finished"] for each in spent["studies"]] in ([0, 0], [1, 0]), (
        "a trial of milliseconds may get through"
    )
    found = run(path, quiet)
    assert found["state"] == "finished" and found["failed"] == {}
    assert [(each["finished"], each["share"]) for each in found["studies"]] == [(4, 4), (3, 3)]
    times = {config.study: [record.number for record in load_history(config)] for config in (first, second)}
    assert times == {"words.a": [0, 1, 2, 3], "words.b": [0, 1, 2]}
    attempts = [file.read_text() for file in sorted(tmp_path.glob("runs/*/trials/*/attempts"))]
    assert len(attempts) == 7 and attempts[1:] == ["x"] * 6, "only the first may have been interrupted"
    again = run(path, quiet)
    assert [each["finished"] for each in again["studies"]] == [4, 3]
    more = run(path, quiet, trials=8)
    assert [each["finished"] for each in more["studies"]] == [4, 4]
    assert campaign_status([path], quiet)["studies"][0]["best"]["score"] == standing_of(first).best.score  # type: ignore[union-attr]


@pytest.mark.slow
def test_studies_take_turns(tmp_path: Path) -> None:
    matrix = {"data": {name: {"data": {"path": f"{name}.jsonl"}} for name in ("a", "b")}}
    path = write_campaign(tmp_path, matrix, budget={"trials": 6, "slice": 2})
    console = Console(record=True, width=100, file=io.StringIO())
    run(path, console)
    turns = [line.split(" ─")[0] for line in console.export_text().splitlines() if ": trials " in line]
    assert turns == [
        "words.a: trials 1 to 2",
        "words.b: trials 1 to 2",
        "words.a: trials 3 to 3",
        "words.b: trials 3 to 3",
    ]


@pytest.mark.slow
def test_a_pair_that_cannot_work_does_not_stop_the_others(tmp_path: Path, quiet: Console) -> None:
    matrix = {"data": {name: {"data": {"path": f"{name}.jsonl"}} for name in ("a", "b")}}
    path = write_campaign(tmp_path, matrix, budget={"trials": 4, "slice": 1})
    broken = load_campaign([path]).studies[0]
    broken.study_folder.mkdir(parents=True)
    (broken.study_folder / "script.json").write_text('{"start": "user"}')
    found = run(path, quiet)
    assert found["state"] == "failed"
    assert list(found["failed"]) == ["words.a"] and "`path` must exist" in found["failed"]["words.a"]
    assert [each["finished"] for each in found["studies"]] == [0, 2]


def with_trials(tmp_path: Path) -> StudyConfig:
    """A study of two finished trials, which keeps problems for a confirmation."""
    evaluation = small_config()["evaluation"] | {"report_problems": 16}
    path = write_campaign(tmp_path, {"data": {"a": {}, "b": {}}}, evaluation=evaluation)
    config = load_campaign([path]).studies[0]
    config.study_folder.mkdir(parents=True)
    assert run_study(config, launch=scripted, trials=2).state == "finished"
    return config


@pytest.mark.slow
def test_time_for_confirmations_is_kept_back_once_it_fits(tmp_path: Path, clock, trials_take) -> None:
    trials_take(0.3)
    config = with_trials(tmp_path)
    other = load_campaign([tmp_path / "campaign.yaml"]).studies[1]
    late, soon = clock.shown + timedelta(hours=1), clock.shown + timedelta(seconds=4)
    budget = SharedBudget([config, other], late, None, 1)
    assert budget.for_search(other) == Limits(late, None), "the other's turn comes first: what it will need is unknown"
    budget.all_begun = True
    limits = budget.for_search(config)
    cost = confirmation_cost(config, load_history(config))
    assert cost is not None and cost.runs >= 4
    assert limits.until == late - timedelta(seconds=cost.wall_seconds(1) + AROUND_SECONDS) and not limits.over
    assert budget.kept_back and budget.for_confirmation(config).until == late
    too_soon = SharedBudget([config, other], soon, None, 1)
    too_soon.all_begun = True
    assert too_soon.for_search(config) == Limits(soon, None), "what never fits takes nothing from the search"
    assert not too_soon.kept_back
    assert SharedBudget([other], late, None, 1).for_search(other) == Limits(late, None), "nothing to confirm yet"


@pytest.mark.slow
def test_a_campaign_says_what_did_not_fit_and_confirms_once(tmp_path: Path) -> None:
    evaluation = small_config()["evaluation"] | {"report_problems": 16}
    path = write_campaign(
        tmp_path,
        {"data": {"a": {}, "b": {}}},
        evaluation=evaluation,
        budget={"trials": 8, "slice": 2},
        confirmation=SHORT,
    )
    console = Console(record=True, width=200, file=io.StringIO())
    stopped = run(path, console, hours=1e-9)
    assert stopped["state"] == "stopped" and [said.split(": ")[0] for said in stopped["left"]] == ["words.a", "words.b"]
    assert all("of 4 trials" in said for said in stopped["left"])
    for config in load_campaign([path]).studies:
        search(config)
    left = run(path, console, hours=1e-9)["left"]
    assert all(
        re.fullmatch(r"words\.[ab]: left are its confirmation \(about .* on 1 engine\(s\)\)\.", said) for said in left
    )
    for config in load_campaign([path]).studies:
        confirm(config)
    console = Console(record=True, width=200, file=io.StringIO())
    found = run(path, console)
    assert (found["state"], found["left"]) == ("finished", [])
    assert "confirmation ─" not in console.export_text(), "what is confirmed is not confirmed again"


@pytest.mark.slow
def test_hours_are_shared_and_a_confirmation_has_its_part(tmp_path: Path, trials_take) -> None:
    trials_take(0.3)
    config = with_trials(tmp_path)
    other = load_campaign([tmp_path / "campaign.yaml"]).studies[1]
    used = sum(record.seconds or 0.0 for record in load_history(config)) / 3600
    cost = confirmation_cost(config, load_history(config))
    assert cost is not None and used == pytest.approx(0.6 / 3600)
    budget = SharedBudget([config, other], None, 1.0, 1)
    budget.all_begun = True
    kept = 1.0 - cost.engine_seconds / 3600
    assert budget.for_search(config).hours == pytest.approx(kept), "over all its trials, those before included"
    assert budget.for_search(other).hours == pytest.approx(kept - used), "what the other has left"
    assert budget.for_confirmation(config).hours == pytest.approx(1.0 - used)
    assert SharedBudget([config, other], None, used / 2, 1).for_search(other).over
