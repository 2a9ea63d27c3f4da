"""Deadlines and engine hours: what is kept for the confirmation, and what is said when it does not fit."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from rich.console import Console
from scripted_study import scripted
from small_study import small_config

from qtarget.search.campaign import session
from qtarget.search.campaign.session import run_file
from qtarget.search.loop import supervisor
from qtarget.search.loop.budget import MARGIN, Budget, Cost, Spending, confirmation_cost, parse_until
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config_file import parse_study
from qtarget.search.terminal.status import show_status
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError

EVALUATION = {**small_config()["evaluation"], "report_problems": 16}
CONFIRMATION = {"seeds": 2, "designs": 1, "longer": None}


def search(**changes: Any) -> dict[str, Any]:
    return {**small_config()["search"], "pruner": "none", "startup_trials": 100, **changes}


def record(number: int, preset: str, seconds: float, state: str = "complete") -> TrialRecord:
    """A trial as the storage knows it; its files are elsewhere."""
    return TrialRecord(
        number, preset, state, presets.get(preset), preset, {}, {}, 0.5, 0.1, seconds, {}, {}, 1, [], None, None,
        Path("nowhere"),
    )  # fmt: skip


def test_a_confirmation_costs_what_trials_took() -> None:
    config = parse_study(small_config(evaluation=EVALUATION, confirmation=CONFIRMATION))
    assert confirmation_cost(config, [record(0, "dft", 10.0)]) is None, "there is nothing to compare it with"
    records = [record(0, "sft", 10.0), record(1, "dft", 30.0), record(2, "asft", 20.0), record(3, "kd", 99.0, "failed")]
    cost = confirmation_cost(config, records)
    assert cost is not None and cost.seconds_each == 30.0
    assert 3 <= cost.runs <= 2 * 3 + 2 * 2 * 3 * 3, "a race of at most two seeds each, then twice as long ones"
    assert Cost(6, 30.0).engine_seconds == MARGIN * 6 * 30.0 and Cost(6, 30.0).wall_seconds(4) == MARGIN * 2 * 30.0


def test_more_report_problems_take_longer(tmp_path: Path) -> None:
    evaluation = {**EVALUATION, "report_problems": 48}
    config = parse_study(small_config(evaluation=evaluation, confirmation=CONFIRMATION))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps({"num_problems": 16, "evaluation_seconds": 4.0}))
    records = [record(0, "sft", 10.0), record(1, "dft", 10.0)]
    records = [
        TrialRecord(**{**vars(each), "folder": tmp_path / name}) for each, name in zip(records, "ab", strict=True)
    ]
    assert confirmation_cost(config, records).seconds_each == 10.0 + 2 * 4.0


def spending(budget: Budget, cost: Cost | None, used: dict[int, float]) -> Spending:
    found = Spending(budget, parse_study(small_config()))
    found._seconds, found.cost = used, cost
    return found


@pytest.mark.parametrize(
    ("hours", "used", "running", "over"),
    [
        (None, {0: 1e9}, {}, None),
        (1.0, {0: 3000.0}, {}, None),
        (1.0, {0: 3000.0}, {1: 599.0}, None),
        (1.0, {0: 3000.0}, {1: 601.0}, "hours"),
        (1.0, {0: 3000.0, 1: 500.0}, {1: 599.0}, None),  # the running one counts once
    ],
)
def test_engine_hours(hours: float | None, used: dict[int, float], running: dict[int, float], over: str | None) -> None:
    assert spending(Budget(hours=hours), None, used).over(running) == over


def test_the_search_leaves_the_confirmation_its_share_of_the_hours() -> None:
    found = spending(Budget(hours=1.0, reserve=1), Cost(10, 100.0), {0: 1000.0})
    assert found.over({1: 0.0}) is None
    assert found.over({1: 3600 - 1000 - MARGIN * 1000 - 1}) is None
    assert found.over({1: 3600 - 1000 - MARGIN * 1000 + 1}) == "reserved"


def test_a_confirmation_that_never_fits_takes_nothing_from_the_search() -> None:
    found = spending(Budget(hours=1.0, reserve=1), Cost(100, 100.0), {0: 1000.0})
    assert found.over({1: 2000.0}) is None
    assert found.over({1: 2601.0}) == "hours"
    until = datetime.now(UTC) + timedelta(seconds=60)
    assert spending(Budget(until, reserve=1), Cost(1, 100.0), {}).over({}) is None


def test_the_deadline_counts_in_any_time_zone() -> None:
    past = datetime.now(ZoneInfo("Asia/Tokyo")) - timedelta(seconds=1)
    ahead = datetime.now(ZoneInfo("America/St_Johns")) + timedelta(seconds=60)
    assert spending(Budget(until=past), None, {}).over({}) == "deadline"
    assert spending(Budget(until=ahead), None, {}).over({}) is None


EVENING = "2026-03-27T22:00:00+01:00"
SPRING, AUTUMN = "2026-03-28T22:00:00+01:00", "2026-10-24T22:00:00+02:00"
"""Evenings before the clocks change: 02:00 is followed by 03:00, and 03:00 by 02:00."""


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("07:00", EVENING, "2026-03-28T07:00:00+01:00"),
        ("7:00", EVENING, "2026-03-28T07:00:00+01:00"),
        ("23:30", EVENING, "2026-03-27T23:30:00+01:00"),
        ("22:00", EVENING, "2026-03-28T22:00:00+01:00"),
        ("2026-03-29T07:00", EVENING, "2026-03-29T07:00:00+02:00"),
        ("2026-03-29 07:00", EVENING, "2026-03-29T07:00:00+02:00"),
        ("2026-03-29T07:00+09:00", EVENING, "2026-03-29T07:00:00+09:00"),
        ("07:00-05:00", EVENING, "2026-03-28T07:00:00-05:00"),
        ("17:30-05:00", EVENING, "2026-03-27T17:30:00-05:00"),
        ("02:00+09:00", EVENING, "2026-03-29T02:00:00+09:00"),
        ("7:00Z", EVENING, "2026-03-28T07:00:00+00:00"),
        ("+8h", EVENING, "2026-03-28T06:00:00+01:00"),
        ("+1h30m", EVENING, "2026-03-27T23:30:00+01:00"),
        ("+90min", EVENING, "2026-03-27T23:30:00+01:00"),
        ("+0.5h", EVENING, "2026-03-27T22:30:00+01:00"),
        ("07:00", SPRING, "2026-03-29T07:00:00+02:00"),
        ("+8h", SPRING, "2026-03-29T07:00:00+02:00"),
        ("02:30", SPRING, "2026-03-29T03:30:00+02:00"),  # no clock shows it that night
        ("07:00", AUTUMN, "2026-10-25T07:00:00+01:00"),
        ("+8h", AUTUMN, "2026-10-25T05:00:00+01:00"),
        ("02:30", AUTUMN, "2026-10-25T02:30:00+02:00"),
        ("02:30", "2026-10-25T02:40:00+02:00", "2026-10-25T02:30:00+01:00"),  # the second time
        ("02:30", "2026-10-25T02:40:00+01:00", "2026-10-26T02:30:00+01:00"),
    ],
)
def test_until_is_the_next_such_moment_here(text: str, now: str, expected: str, monkeypatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = parse_until(text, datetime.fromisoformat(now))
        assert found == datetime.fromisoformat(expected)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["25:00", "tomorrow", "2001-01-01T00:00", "+8", "8h", "+", "+0h", "", "7:0", "+9e9h"])
def test_until_must_be_a_moment_ahead(text: str) -> None:
    with pytest.raises(UserError, match="`--until` must"):
        parse_until(text)


def test_a_deadline_while_the_engine_loads_is_kept(scripted_study) -> None:
    config = scripted_study({"start": "slow"})
    until = datetime.now(UTC) + timedelta(seconds=1)
    summary = run_study(config, until=until, launch=scripted)
    assert (summary.state, summary.ended) == ("stopped", "deadline")


@pytest.fixture
def study_file(scripted_study, tmp_path: Path, monkeypatch, recorder) -> Any:
    """Builds a study file whose engines, those of its confirmation too, follow a script; `recorder` hears of it."""

    def launch(folder: Path, index: int) -> Any:
        script = tmp_path / "runs" / "small" / "script.json"
        (folder / "script.json").write_text(script.read_text() if "confirmation" not in folder.name else confirming[0])
        return scripted(folder, index)

    confirming: list[str] = []

    def build(script: dict[str, Any], confirmation: dict[str, Any], **changes: Any) -> Path:
        scripted_study(script)
        confirming[:] = [json.dumps(confirmation)]
        path = tmp_path / "study.yaml"
        settings = {"evaluation": EVALUATION, "confirmation": CONFIRMATION, "tracking": {"uri": "none"}}
        path.write_text(yaml.safe_dump(small_config(**settings, **changes)))
        return path

    original = supervisor._supervise

    def supervise(study: Any, heard: Any, *given: Any) -> Any:
        return original(study, [*heard, recorder], *given[:-1], launch)

    monkeypatch.setattr(supervisor, "_supervise", supervise)
    return build


def an_hour_ahead() -> str:
    """A deadline that only keeps the report from loading a model, which these studies do not have."""
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@pytest.mark.slow
def test_a_search_ends_early_enough_for_its_confirmation(study_file, trials_take) -> None:
    """In engine hours; the deadline drill goes by the clock."""
    trials_take(1.0)
    path = study_file({}, {"items": True}, search=search(trials=200), teacher=None)
    found = run_file(path, Console(file=io.StringIO()), hours=9.5 / 3600, until=an_hour_ahead())
    assert found["ended"] == "reserved" and found["counts"]["complete"] >= 2
    assert len(found["confirmation"]["comparisons"]) == 2, "the best other design, the best published objective"
    assert found["state"] == "stopped", "the search has slots left"
    states = {each.state for each in load_history(session.find_study(path))}
    assert states == {"complete", "waiting"}


@pytest.mark.slow
def test_no_time_to_confirm_is_said_and_the_next_call_goes_on(study_file, recorder, clock, monkeypatch) -> None:
    path = study_file({"3": ["wait", "finish"]}, {"items": True}, search=search(trials=6), teacher=None)
    screen, until = io.StringIO(), clock.shown + timedelta(hours=8)

    def hear(event: Any) -> None:
        if type(event).__name__ == "StepDone" and event.number == 3:
            clock.shown = until

    monkeypatch.setattr(recorder, "on_event", hear)
    found = run_file(path, Console(file=screen), until=until.isoformat())
    assert found["ended"] == "deadline" and (found["counts"]["complete"], found["counts"]["waiting"]) == (3, 3)
    assert "No time to confirm" in screen.getvalue() and "confirmation" not in found
    again = run_file(path, Console(file=screen), until=(until + timedelta(hours=1)).isoformat())
    assert again["state"] == "finished" and again["counts"]["complete"] == 6
    assert again["confirmation"]["seeds"] <= 2


@pytest.mark.slow
def test_a_race_that_is_cut_says_what_is_not_decided_and_goes_on(study_file, trials_take) -> None:
    trials_take(1.0)
    path, screen = study_file({}, {"items": True}, search=search(trials=4), teacher=None), io.StringIO()
    config = session.find_study(path)
    run_study(config, launch=scripted)
    cut = session.confirm_study(config, Console(file=screen, width=200), hours=1.5 / 3600)
    assert cut is not None and cut["undecided"], "two runs of four or more"
    assert "had no time to end" in screen.getvalue() and "is not decided yet" in screen.getvalue()
    show_status(path, Console(file=screen, width=200))
    assert "A confirmation has begun and decided nothing yet" in screen.getvalue()
    whole = session.confirm_study(config, Console(file=io.StringIO()), deadline=datetime.now(UTC) + timedelta(hours=1))
    assert whole is not None and not whole["undecided"] and whole["trainings"] > cut["trainings"]


@pytest.mark.slow
def test_why_there_is_nothing_to_confirm_is_said(study_file) -> None:
    screen = io.StringIO()
    path = study_file({}, {}, search=search(trials=2, rivals=0.0), baselines=["dft", "asft"])
    found = run_file(path, Console(file=screen, width=200))
    assert found["state"] == "finished" and "confirmation" not in found
    assert "Not confirmed: a confirmation needs plain SFT to compare with" in screen.getvalue()
