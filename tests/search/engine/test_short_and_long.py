"""A small version of benchmarks/short_and_long.py: a call that goes on where it was, and numbers known beforehand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from small_study import small_config, write_small_study

from qtarget.search.study.config import StudyConfig

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("short_and_long")
    monkeypatch.setattr(module, "DESIGNS", 2)
    monkeypatch.setattr(module, "RESAMPLES", 50)
    return module


def scores(*rows: list[float]) -> np.ndarray:
    """(designs, seeds, 10 problems): so many tenths of the problems right, by design and seed."""
    return np.array([[[float(place < 10 * share) for place in range(10)] for share in row] for row in rows])


@pytest.mark.slow
def test_a_call_does_what_is_missing_and_the_table_says_what_is_there(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_small_study(tmp_path, evaluation={**small_config()["evaluation"], "report_problems": 8})
    arguments = [str(study), "--out", str(tmp_path / "out"), "--steps", "1", "--seeds", "2"]
    script.main(arguments)
    first = capsys.readouterr().out
    path = tmp_path / "out" / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["length"], row["seed"]) for row in rows[::2]] == [(1, 0), (1, 1), (3, 0), (9, 0), (9, 1)]
    assert {len(row["right"]) for row in rows} == {8}
    *kept, last = path.read_text().splitlines()
    path.write_text("\n".join(kept) + "\n" + last[:-4])  # as a killed call may leave it
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        script.Place, "right", lambda self, design, *rest: asked.append((design.name, *rest)) or [1.0] * 8
    )
    script.main(arguments)
    assert asked == [(rows[-1]["design"], 9, 1)]
    assert "| sft | label first |" in first and "1 x and 9 x: rank correlation" in first
    with pytest.raises(SystemExit, match="of other trainings"):
        script.main([*arguments[:3], "--steps", "2"])


def test_a_campaign_s_study_is_chosen_by_its_name(script: ModuleType) -> None:
    campaign = BENCHMARKS.parent / "studies" / "real-pairs.yaml"
    chosen = script.chosen_study(campaign, "clean-sums", 16)
    assert chosen.study == "real.clean-sums" and chosen.evaluation.report_problems == 16
    with pytest.raises(SystemExit, match=r"must name one study.*real.noisy-sums, real.taught-sums"):
        script.chosen_study(campaign, "sums", None)


def test_what_is_said_of_known_scores(script: ModuleType) -> None:
    short, long = scores([0.2, 0.4], [0.5, 0.5], [0.7, 0.9]), scores([0.3], [0.9], [0.6])
    assert script.correlation(short, long) == pytest.approx(0.5)  # ranks 1, 2, 3 against 1, 3, 2
    assert script.within(short) == pytest.approx(1.0)
    assert script.lost(short, long, 1) == pytest.approx(0.3) and script.lost(short, long, 2) == 0
    moved, low, high = script.change(short, long, 1, np.random.default_rng(0))
    assert moved == pytest.approx(0.6 - 0.2) and low <= moved <= high
    low, high = script.interval(short, short, np.random.default_rng(0))
    assert low <= 1 <= high


def test_twelve_designs_of_several_kinds_are_there_without_a_teacher_too(script: ModuleType) -> None:
    script.DESIGNS = 12
    always = StudyConfig.model_validate(small_config(teacher=None)).inputs
    for inputs in (always, always | {"teacher"}):
        chosen = script.designs(inputs)
        assert len({each.name for each in chosen}) == 12 and chosen[0].name == "sft"
        assert len({script.group(each.target) for each in chosen}) == 3 + ("teacher" in inputs)
