"""Published objectives are tuned over the same training knobs as designs: whose turn it is, and with which setting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scripted_study import scripted
from small_study import small_config

from qtarget.search.loop.plan import first_slots
from qtarget.search.loop.rivals import next_rival
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.store.slots import RIVAL
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.spaces import presets

PRESETS = ["sft", "dft", "label_smoothing", "asft"]


def config(**changes: Any) -> StudyConfig:
    space = {"training": {"learning_rate": [1e-5, 1e-3, "log"]}}
    return parse_study(small_config(space=space, baselines=PRESETS) | changes)


def record(number: int, preset: str, rate: float, score: float | None, **changes: Any) -> TrialRecord:
    facts: dict[str, Any] = {
        "state": "complete" if score is not None else "running", "target": presets.get(preset), "baseline": preset,
        "training": {"learning_rate": rate}, "parameters": {}, "standard_error": 0.01, "seconds": 1.0, "verdicts": {},
        "rungs": {}, "attempts": 1, "chain": [], "same_as": None, "failure": None, "folder": Path("nowhere"),
    }  # fmt: skip
    return TrialRecord(number, preset, score=score, **{**facts, **changes})


def first_round(scores: tuple[float, ...] = (0.2, 0.5, 0.1, 0.4)) -> list[TrialRecord]:
    return [record(n, preset, 1e-4, score) for n, (preset, score) in enumerate(zip(PRESETS, scores, strict=True))]


def play(study: StudyConfig, records: list[TrialRecord], rounds: int, score_of: Any) -> list[TrialRecord]:
    """Rival slots one after another, each with the score of its preset and learning rate."""
    for number in range(100, 100 + rounds):
        facts = next_rival(study, records, number).attributes
        rate = facts["training"]["learning_rate"]
        records = [*records, record(number, facts[RIVAL], rate, score_of(facts[RIVAL], rate), rival=True)]
    return records


def test_every_objective_gets_a_turn_then_the_better_half_and_plain_sft_always() -> None:
    found = play(
        config(), first_round(), 9, lambda preset, rate: dict(zip(PRESETS, (0.2, 0.5, 0.1, 0.4), strict=True))[preset]
    )
    turns = [each.title for each in found[4:]]
    assert turns[:2] == ["dft", "sft"], "the best one, then what all are compared with: there may be no third slot"
    assert sorted(turns[:4]) == sorted(PRESETS), "first one more setting for each"
    assert sorted(turns[4:7]) == ["asft", "dft", "sft"], "then the better half, and plain SFT"
    assert "label_smoothing" not in turns[4:]


def test_an_objective_starts_where_the_best_trial_was() -> None:
    best = record(9, "kd", 4e-4, 0.9)
    facts = next_rival(config(), [*first_round(), best], 10).attributes
    assert facts[RIVAL] == "dft" and facts["training"] == {"learning_rate": 4e-4}


def test_tuning_climbs_to_the_best_learning_rate() -> None:
    def score(preset: str, rate: float) -> float:
        return 0.5 - 0.1 * abs(math.log10(rate) - math.log10(4e-5)) if preset == "sft" else 0.1

    study = config(baselines=["sft"])
    found = play(study, [record(0, "sft", 5e-4, score("sft", 5e-4))], 7, score)
    best = max(found, key=lambda each: each.score or 0.0)
    assert best.training["learning_rate"] == pytest.approx(4e-5, rel=0.5), "from twelve times as much"
    rates = [each.training["learning_rate"] for each in found]
    assert len(set(rates)) == len(rates) and all(1e-5 <= rate <= 1e-3 for rate in rates)


def test_other_seeds_of_sft_and_trials_that_were_stopped_say_nothing() -> None:
    lucky = record(7, "sft", 9e-4, 0.99, repeat=1, baseline=None)
    stopped = record(8, "dft", 9e-4, 0.98, state="pruned")
    facts = next_rival(config(), [*first_round(), lucky, stopped], 9).attributes
    assert facts["training"]["learning_rate"] not in (9e-4,)


def test_the_order_of_the_queue() -> None:
    evaluation = {**small_config()["evaluation"], "report_problems": 16}
    search = {**small_config()["search"], "trials": 24, "rivals": 0.25, "repeats": 2}
    slots = first_slots(config(evaluation=evaluation, search=search))
    kinds = [
        "baseline" if "baseline" in slot.attributes else "repeat" if "repeat" in slot.attributes
        else "rival" if RIVAL in slot.attributes else "open" for slot in slots
    ]  # fmt: skip
    assert kinds[:4] == ["baseline"] * 4 and len(kinds) == 24
    assert [kinds.count(each) for each in ("repeat", "rival")] == [2, 5]
    longer = first_slots(config(evaluation=evaluation, search={**search, "trials": 40}))
    assert longer[:24] == slots, "a larger budget appends"
    without = first_slots(config(search={**search, "rivals": 0.0}))
    assert all(set(slot.attributes) in (set(), {"baseline", "target", "training"}) for slot in without)


@pytest.mark.slow
def test_rivals_and_repetitions_run_and_the_sampler_learns_from_rivals(tmp_path: Path) -> None:
    evaluation = {**small_config()["evaluation"], "report_problems": 16}
    search = {**small_config()["search"], "trials": 12, "startup_trials": 3, "pruner": "none"}
    changes = {"search": search, "evaluation": evaluation, "tracking": {"uri": "none"}, "baselines": ["sft", "dft"]}
    study = parse_study(small_config(**changes) | {"base": str(tmp_path)})
    study.study_folder.mkdir(parents=True)
    run_study(study, launch=scripted, trials=7)
    run_study(study, launch=scripted)
    records = load_history(study)
    assert {each.state for each in records} == {"complete"} and len(records) == 12
    rivals = [each for each in records if each.rival]
    assert [each.baseline for each in rivals] == ["sft", "dft"] or [each.baseline for each in rivals] == ["dft", "sft"]
    assert all(each.parameters and each.training["learning_rate"] != 0.01 for each in rivals), "points of the space"
    (again, *_) = [each for each in records if each.repeat is not None]
    assert (again.title, again.target, again.baseline) == ("sft, seed 2", presets.get("sft"), None)
    seeds = {(each.folder / "spec.json").read_text().partition('"seed"')[2][:24] for each in records}
    assert len(seeds) == 1 + sum(each.repeat is not None for each in records)
