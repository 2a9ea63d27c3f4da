"""Comparing studies: designs matched by what they teach, ranks with intervals, and what holds across pairs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import rankdata
from scripted_study import scripted

from qtarget.search.compare.pairs import Pair
from qtarget.search.compare.ranking import BETTER, MIXED, OPEN, WORSE, compare, compare_studies
from qtarget.search.compare.tables import compare_and_show, markdown
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config import StudyConfig
from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.errors import UserError
from qtarget.spaces.identity import canonical_id

PROBLEMS = 200


def record(number: int, title: str, target: TargetSpec, score: float, baseline: str | None) -> TrialRecord:
    return TrialRecord(
        number=number, title=title, state="complete", target=target, baseline=baseline, training={}, parameters={},
        score=score, standard_error=None, seconds=1.0, verdicts={}, rungs={}, attempts=1, chain=[], same_as=None,
        failure=None, folder=Path("nowhere"),
    )  # fmt: skip


def pair(study: str, shares: dict[str, float], found: float | None = None) -> Pair:
    """A study whose baselines solve the given shares of problems, drawn independently, and one design of its own."""
    generator = np.random.default_rng(len(study) + PROBLEMS)
    targets = {name: presets.get(name) for name in shares}
    if found is not None:
        targets["found"] = presets.get("target_sft", eta=0.01 * len(study))
    designs, scores = {}, {}
    for number, (name, target) in enumerate(targets.items()):
        solved = (generator.random(PROBLEMS) < ({**shares, "found": found}[name] or 0.0)).astype(float)
        baseline = None if name == "found" else name
        designs[canonical_id(target)] = record(number, name, target, float(solved.mean()), baseline)
        scores[canonical_id(target)] = solved
    return Pair(study, designs, scores, None)


def outcomes(*pairs: Pair) -> dict[str, str | None]:
    return {row.title: row.outcome for row in compare(pairs).rows}


def test_a_design_holds_only_when_it_is_better_in_every_pair() -> None:
    first = pair("one", {"sft": 0.3, "kd": 0.6, "dft": 0.05, "hybrid_kd": 0.6, "asft": 0.3})
    second = pair("other", {"sft": 0.3, "kd": 0.6, "dft": 0.05, "hybrid_kd": 0.1, "asft": 0.3})
    expected = {"sft": None, "kd": BETTER, "dft": WORSE, "hybrid_kd": MIXED, "asft": OPEN}
    assert outcomes(first, second) == expected
    third = pair("third pair", {"sft": 0.3, "kd": 0.3, "dft": 0.3, "hybrid_kd": 0.3, "asft": 0.3})
    assert outcomes(first, second, third) == {"sft": None, "kd": OPEN, "dft": OPEN, "hybrid_kd": MIXED, "asft": OPEN}


@pytest.mark.slow
def test_equal_designs_are_hardly_ever_called_better_in_every_pair() -> None:
    generator = np.random.default_rng(7)
    names, wrong = ["sft", "dft", "kd", "asft", "hybrid_kd"], 0
    for _ in range(20):
        pairs = []
        for study in ("a", "b"):
            found = pair(study, dict.fromkeys(names, 0.4))
            solved = {name: (generator.random(60) < 0.4).astype(float) for name in found.scores}
            pairs.append(replace(found, scores=solved))
        wrong += any(outcome in (BETTER, WORSE) for outcome in outcomes(*pairs).values())
    assert wrong <= 3, "5 % of 20, with room for chance"


def test_ranks_are_those_of_scipy_and_their_intervals_hold_them() -> None:
    shares = {"sft": 0.2, "dft": 0.2, "kd": 0.8, "asft": 0.5}
    found = compare([pair("one", shares), pair("two words", shares)])
    for index, study in enumerate(found.studies):
        places = [row.places[index] for row in found.rows]
        assert {place.study for place in places} == {study}
        expected = rankdata([-place.score for place in places])
        np.testing.assert_array_equal([place.rank for place in places], expected)
        assert all(1 <= place.low <= place.rank <= place.high <= 4 for place in places)
    assert found.rows[0].title == "kd" and (found.rows[0].low, found.rows[0].high) == (1.0, 1.0)
    low, high = sorted(row.title for row in found.rows[2:])
    assert (low, high) == ("dft", "sft") and found.rows[-1].high > 3.0, "two equal designs may change places"
    effects = [place.effect for row in found.rows if row.title == "sft" for place in row.places]
    assert effects == [0.0, 0.0]


def test_a_winner_of_its_own_is_compared_with_the_best_shared_design() -> None:
    found = compare([pair("one", {"sft": 0.3, "kd": 0.5}, found=0.9), pair("two words", {"sft": 0.5, "kd": 0.3}, 0.1)])
    own, shared = found.winners
    assert (own.title, own.shared, shared.title, shared.shared) == ("found", False, "sft", True)
    assert own.low < own.gain < own.high and own.low > 0.2 and shared.gain == 0.0
    assert json.loads(json.dumps(found.as_dict()))["studies"] == ["one", "two words"]


def test_studies_without_a_common_design_or_without_sft() -> None:
    with pytest.raises(UserError, match="share at least one design"):
        compare([pair("one", {"sft": 0.3}), pair("two", {"kd": 0.3})])
    assert outcomes(pair("one", {"dft": 0.3, "kd": 0.9}), pair("two words", {"dft": 0.3, "kd": 0.9})) == {
        "kd": None,
        "dft": None,
    }


@pytest.fixture
def finished(scripted_study: Callable[..., StudyConfig]) -> list[StudyConfig]:
    """Two studies with scripted engines, whose items are written as the real engine writes them."""
    configs = []
    for name, scores in (("first", {"0": 0.25, "1": 0.75}), ("second", {"0": 0.5, "1": 0.25})):
        config = scripted_study({"scores": scores}, study=name, search={"trials": 2}, tracking={"uri": "none"})
        (config.study_folder / "script.json").write_text(json.dumps({"scores": scores}))
        run_study(config, launch=scripted)
        for each in load_history(config):
            correct = round(16 * (each.score or 0.0))
            lines = [
                json.dumps({"problem": f"p{index:02d}", "verdict": "correct" if index < correct else "wrong"})
                for index in range(16)
            ]
            (each.folder / "items.jsonl").write_text("\n".join(lines) + "\n")
        configs.append(config)
    return configs


@pytest.mark.slow
def test_compare_reads_study_folders_and_writes_page_and_figure(finished: list[StudyConfig], tmp_path: Path) -> None:
    folders = [config.study_folder for config in finished]
    console = Console(file=io.StringIO(), record=True, width=140)
    facts = compare_and_show(folders, console, tmp_path / "out" / "compare.md")
    printed, page = console.export_text(), (tmp_path / "out" / "compare.md").read_text()
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000
    assert facts["studies"] == ("first", "second")
    for text in (printed, page):
        assert "sft" in text and "0.750" in text and "not confirmed" in text
    assert "![Ranks of the shared designs](compare.png)" in page
    assert page == markdown(compare_studies(folders), "compare.png")
    compare_and_show(folders, console, tmp_path / "ranks.svg")
    assert "<svg" in (tmp_path / "ranks.svg").read_text()


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(finished: list[StudyConfig], tmp_path: Path) -> None:
    folder, console = finished[0].study_folder, Console(quiet=True)
    with pytest.raises(UserError, match="at least 2 studies, but got 1"):
        compare_and_show([folder], console)
    with pytest.raises(UserError, match=r"must end in \.md, .* but got 'x\.txt'"):
        compare_and_show([folder, folder], console, tmp_path / "x.txt")
    with pytest.raises(UserError, match=r"must hold study\.json"):
        compare_and_show([folder, tmp_path], console)
