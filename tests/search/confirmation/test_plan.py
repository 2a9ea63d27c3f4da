"""Who is confirmed and what it will cost: candidates, the noise of a study's own trials, the plan in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from small_study import small_config

from qtarget.evaluation.statistics.standing import Line
from qtarget.search.confirmation.candidates import candidates, lacking, no_rival
from qtarget.search.confirmation.power import ASSUMED_RUN, planned, study_noise
from qtarget.search.store.history import TrialRecord, plain_sft, read_records
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.terminal.tables import winner_sentence
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError

LINE = Line(4, 3)


def config(**confirmation: Any) -> StudyConfig:
    evaluation = {**small_config()["evaluation"], "report_problems": 1024}
    return parse_study(small_config(evaluation=evaluation, confirmation=confirmation))


def record(number: int, preset: str, score: float, folder: Path = Path("nowhere"), **changes: Any) -> TrialRecord:
    facts: dict[str, Any] = {
        "state": "complete", "target": presets.get(preset), "baseline": preset, "training": {"learning_rate": 1e-4},
        "parameters": {}, "standard_error": 0.01, "seconds": 1.0, "verdicts": {}, "rungs": {}, "attempts": 1,
        "chain": [], "same_as": None, "failure": None, "folder": folder, "title": preset,
    }  # fmt: skip
    return TrialRecord(number, score=score, **{**facts, **changes})


def test_plain_sft_at_its_best_the_best_published_and_the_best_designs() -> None:
    target = presets.get("hybrid_kd")
    searched = [replace(record(n, "kd", 0.6 + n / 100), baseline=None, target=found, title=f"design {n}")
                for n, found in enumerate((presets.get("kd"), target), 5)]  # fmt: skip
    records = [
        record(0, "sft", 0.3),
        record(1, "dft", 0.5),
        record(2, "asft", 0.4),
        record(3, "sft", 0.45, training={"learning_rate": 3e-4}, rival=True),
        record(4, "sft", 0.9, repeat=1, baseline=None, title="sft, seed 2"),
        *searched,
    ]
    found = candidates(config(), records)
    assert [(each.title, each.role, each.trial) for each in found] == [
        ("sft", "sft", 3), ("trial 6: design 6", "design", 6), ("trial 5: design 5", "design", 5),
        ("dft at 0.0001", "published", 1),
    ]  # fmt: skip
    assert found[0].training == {"learning_rate": 3e-4} and no_rival(found) is None


@pytest.mark.parametrize(
    ("known", "other", "chosen"),
    [
        ((0.609, 0.660, 0.770), (0.70,), 0),  # what three runs make of it, not the luck of one
        ((0.60, 0.61, 0.62), (0.95,), 1),  # no luck of one is so large
        ((0.60, 0.61, 0.62), (0.30,), 0),
        ((0.60,), (0.61,), 1),
        ((0.60,), (0.60,), 0),
        ((0.60, 0.60, 0.60), (0.61,), 1),
    ],
)
def test_plain_sft_is_taken_where_all_its_runs_promise_most(known, other, chosen: int) -> None:
    rates = (1e-4, 3e-4)
    trials = [
        record(number, "sft", runs[0], training={"learning_rate": rate}, repeated=runs[1:])
        for number, rate, runs in zip((0, 1), rates, (known, other), strict=True)
    ]
    design = replace(record(2, "kd", 0.9), baseline=None)
    assert candidates(config(), [*trials, design])[0].training == {"learning_rate": rates[chosen]}
    assert plain_sft([*trials, design]) is trials[chosen]


def test_repetitions_of_plain_sft_belong_to_the_trial_that_they_repeat(tmp_path: Path) -> None:
    def trial(number: int, score: float, rate: float = 1e-4, **facts: Any) -> optuna.trial.FrozenTrial:
        target = presets.get("sft").model_dump(mode="json")
        attributes = {"baseline": "sft", "target": target, "training": {"learning_rate": rate}, **facts}
        made = optuna.trial.create_trial(value=score, user_attrs=attributes)
        made.number = number
        return made

    trials = [trial(0, 0.6), trial(1, 0.7, repeat=1), trial(2, 0.8, repeat=2), trial(3, 0.65, rate=3e-4)]
    records = read_records(trials, tmp_path)
    assert [each.repeated for each in records] == [(0.7, 0.8), (), (), ()]
    said = winner_sentence(record(9, "kd", 0.75), plain_sft(records))
    assert "plain SFT 0.600 (0.700 over 3 seeds): +5.0 points" in said


def test_without_a_published_rival_it_is_said_and_without_sft_refused() -> None:
    design = replace(record(2, "kd", 0.6), baseline=None)
    found = candidates(config(), [record(0, "sft", 0.3), design])
    assert [each.role for each in found] == ["sft", "design"]
    assert "whether one would do as well is not asked" in str(no_rival(found))
    with pytest.raises(UserError, match="needs plain SFT to compare with"):
        candidates(config(), [record(1, "dft", 0.5), design])
    drawn = replace(record(3, "sft", 0.2), baseline=None)
    assert candidates(config(), [drawn, design])[0].trial == 3, "also where the sampler drew it"
    with pytest.raises(UserError, match="needs a complete trial beside plain SFT"):
        candidates(config(), [record(0, "sft", 0.3)])


def test_what_the_baselines_leave_out_is_said_before_the_search() -> None:
    def of(*names: str) -> str:
        return " ".join(lacking(parse_study(small_config(baselines=list(names)))))

    assert of("sft", "dft") == ""
    assert "plain SFT is no baseline" in of("dft") and "published" not in of("dft")
    assert "no baseline is a published objective other than plain SFT" in of("sft")


def answered(folder: Path, scores: np.ndarray) -> Path:
    folder.mkdir()
    lines = [
        json.dumps({"problem": f"p{n}", "verdict": "correct" if right else "wrong"}) for n, right in enumerate(scores)
    ]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_noise_is_measured_on_repetitions_of_sft(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chances = 0.5 + 0.2 * rng.normal(size=500)
    shifts = (-0.1, 0.0, 0.1)
    folders = [answered(tmp_path / str(n), rng.random(500) < chances + shift) for n, shift in enumerate(shifts)]
    records = [
        record(n, "sft", 0.5, folder, **({"repeat": n, "baseline": None} if n else {}))
        for n, folder in enumerate(folders)
    ]
    found = study_noise(config(), records)
    assert found.freedom == 2
    assert found.run == pytest.approx(np.sqrt((2 * 0.1**2 + ASSUMED_RUN**2) / 3), rel=0.25)
    assert found.cell == pytest.approx(np.sqrt(0.2 / 1024), rel=0.15), "p (1 - p), less what problems differ by"
    none = study_noise(config(), records[:1])
    assert (none.run, none.freedom) == (ASSUMED_RUN, 0.0)


@pytest.mark.slow
def test_the_plan_in_words() -> None:
    usual = planned(config(), [], LINE)
    lines = list(usual.lines(60.0, workers=2))
    assert "3.0 points (assumed, not measured)" in lines[0]
    assert (
        lines[1].startswith("finds      a lead of 2 points in ")
        and "of 5 points in" in lines[1]
        and "of 10 points in" in lines[1]
    )
    assert "looks for  a lead of 4.1 points: found in " in lines[2] and " min)" in lines[2] and len(lines) == 3
    facts = usual.as_dict()
    assert facts["most"] == 4 * usual.settings.seeds + 2.0 * 3 * usual.settings.longer_seeds > usual.cost
    assert replace(usual, settings=usual.settings.model_copy(update={"longer": None})).most == 4 * usual.settings.seeds
    assert [each["lead"] for each in facts["chances"]][:3] == [0.02, 0.05, 0.10]
    assert json.dumps(facts) and facts["chances"][0]["found"] < facts["chances"][2]["found"]


def test_what_no_race_can_find_is_said_with_the_way_out() -> None:
    hopeless = planned(config(detect=0.01, power=0.9, seeds=3), [], LINE)
    assert hopeless.settings.seeds == 3
    assert hopeless.shortfall is not None and "not in the 90% asked for" in hopeless.shortfall
    assert "`confirmation.seeds`" in hopeless.shortfall and " trainings" in "".join(hopeless.lines(None))
    assert planned(config(), [], LINE).shortfall is None
