"""What a result file means for queue, sampler and people; whom a trial races against; the front of two objectives."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from qtarget.search.store.history import TrialRecord, front, opponents, read_records
from qtarget.search.store.outcome import outcome, race_sentence, retention_sentence
from qtarget.search.store.slots import RIVAL, is_anchor

RACE = {"against": 3, "stop": True, "problems": 32, "difference": -0.25, "e_value": 14.2, "threshold": 10.0}
KEPT = {"name": "KL to the base", "unit": "nats per token", "value": 0.3, "forgotten": 0.3}


def result(**changes: Any) -> dict[str, Any]:
    facts = {"state": "complete", "score": 0.5, "standard_error": 0.03, "steps": 8, "race": None, "retention": None}
    return {**facts, **changes}


def test_a_complete_result_is_its_score_and_no_constraint() -> None:
    found = outcome(result(), 12.0)
    assert (found.state, found.reason, found.verdict.state) == ("complete", None, TrialState.COMPLETE)
    assert found.verdict.score == 0.5 and not found.verdict.constraints and not found.verdict.further
    assert found.verdict.attributes == {"standard_error": 0.03, "seconds": 12.0}  # what is None is not kept


def test_a_raced_out_result_is_pruned_with_its_reason() -> None:
    found = outcome(result(state="pruned", race=RACE), 1.0)
    assert found.state == "pruned" and found.verdict.state == TrialState.PRUNED and found.verdict.score is None
    assert (
        found.reason
        == ("race against trial 3: stopped: -25.0 points after 32 problems, evidence 14.2 of 10")
        == race_sentence(RACE)
    )
    assert outcome(result(state="pruned"), 1.0).reason is None  # at a rung


@pytest.mark.parametrize(("limit", "state"), [(0.2, "infeasible"), (0.3, "complete"), (0.4, "complete")])
def test_a_limit_makes_a_constraint(limit: float, state: str) -> None:
    kept = {**KEPT, "limit": limit, "feasible": KEPT["forgotten"] <= limit}
    found = outcome(result(retention=kept), 1.0)
    assert found.state == state and found.verdict.state == TrialState.COMPLETE
    assert found.verdict.constraints == {"retention": pytest.approx(0.3 - limit)}
    assert (found.reason is None) == (state == "complete")
    assert "forgot 0.3 nats per token (KL to the base), allowed" in retention_sentence(kept)


def test_an_objective_is_a_second_value() -> None:
    assert outcome(result(retention={**KEPT, "objective": -0.3}), 1.0).verdict.further == (-0.3,)


def trials(folder: Path, scores: dict[int, list[float] | None], states: dict[int, TrialState]) -> list[Any]:
    """Optuna's trials with result files; None: the trial's folder is elsewhere."""
    study = optuna.create_study(direction="maximize")
    for number, items in scores.items():
        value = None if items is None else sum(items) / len(items)
        state = states.get(number, TrialState.COMPLETE)
        study.add_trial(create_trial(state=state, value=0.9 if value is None else value, user_attrs={"title": "t"}))
        if items is not None:
            path = folder / "trials" / f"{number:04d}" / "result.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"item_scores": items}))
    return study.trials


def test_a_trial_races_against_the_best_full_trial_and_all_of_them_predict(tmp_path: Path) -> None:
    scores = {0: [1.0, 0.0, 0.0, 0.0], 1: [1.0, 1.0, 0.0, 1.0], 2: [1.0, 1.0]}
    found = opponents(trials(tmp_path, scores, {2: TrialState.PRUNED}), tmp_path)
    assert found is not None
    assert (found["number"], found["incumbent"]) == (1, scores[1])
    assert found["reference"] == pytest.approx([(2 + 0.75) / 3, (1 + 0.75) / 3, 0.75 / 3, (1 + 0.75) / 3])


@pytest.mark.parametrize(
    ("preset", "against"), [(None, 3), ("dft", 2), ("sft", 1)], ids=["a design", "published", "plain SFT"]
)
def test_a_trial_races_against_its_own_kind(tmp_path: Path, preset: str | None, against: int) -> None:
    """Of plain SFT at two rates, a better published objective and a best design, each kind's best ends whole."""
    scores = {0: [1.0, 0.0, 0.0, 0.0], 1: [1.0, 1.0, 0.0, 0.0], 2: [1.0, 1.0, 1.0, 0.0], 3: [1.0, 1.0, 1.0, 1.0]}
    found = trials(tmp_path, scores, {})
    for trial, name in zip(found, ("sft", "sft", "dft"), strict=False):
        trial.user_attrs["baseline"] = name
    raced = opponents(found, tmp_path, preset)
    assert raced is not None and raced["number"] == against
    assert opponents([*found[:2], found[3]], tmp_path, "dft") is None, "the first published one runs whole"


@pytest.mark.parametrize("anchors", ["sft", "published"])
@pytest.mark.parametrize(
    ("facts", "whole"),
    [
        ({"baseline": "sft"}, ["sft", "published"]),
        ({"baseline": "dft"}, ["published"]),
        ({"repeat": 1}, ["sft", "published"]),
        ({RIVAL: "sft"}, []),
        ({RIVAL: True}, []),
        ({"title": "a design"}, []),
    ],
    ids=str,
)
def test_anchors_run_whole(facts: dict[str, Any], whole: list[str], anchors: str) -> None:
    assert is_anchor(facts, anchors) == (anchors in whole)


def test_nobody_races_without_a_full_trial_or_without_its_files(tmp_path: Path) -> None:
    assert opponents([], tmp_path) is None
    assert (
        opponents(trials(tmp_path, {0: [1.0, 0.0], 1: None}, {}), tmp_path) is None
    )  # the best one is on another host


def records(points: list[tuple[float, float]], folder: Path) -> list[TrialRecord]:
    study = optuna.create_study(direction="maximize")
    for score, forgotten in points:
        kept = {**KEPT, "forgotten": forgotten}
        study.add_trial(create_trial(value=score, user_attrs={"title": "t", "retention": kept}))
    return read_records(study.trials, folder)


def test_the_front_is_what_nothing_beats_in_both(tmp_path: Path) -> None:
    draw = random.Random("front")
    scores = [draw.randrange(8) for _ in range(40)]  # who learns more forgets more
    points = [(score / 8, (score + draw.randrange(6)) / 16) for score in scores]
    found = [(record.score, record.retention["forgotten"]) for record in front(records(points, tmp_path))]
    beaten = {
        (s, f) for s, f in points for other in points if other != (s, f) and other[0] >= s and other[1] <= f
    }  # fmt: skip
    assert sorted(found, reverse=True) == found
    assert set(found) == set(points) - beaten and len(found) == len(set(found)) > 2


def test_trials_that_were_not_measured_or_not_completed_are_on_no_front(tmp_path: Path) -> None:
    measured, other = records([(0.5, 0.1), (0.9, 0.0)], tmp_path)
    assert front([measured, replace(other, retention=None)]) == [measured]
    assert front([measured, replace(other, state="infeasible", score=None)]) == [measured]
    assert front([replace(measured, retention=None)]) == []
