"""Verdicts: what a race of tables is said to have come to, and how often such words are wrong."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtarget.evaluation.statistics.confirmation import Confirmation, Outcome, Trend, conclude
from qtarget.evaluation.statistics.evidence import Tables
from qtarget.evaluation.statistics.finals import Finals, replay
from qtarget.evaluation.statistics.settings import FinalsSettings
from qtarget.evaluation.statistics.standing import Line

TITLES = ["sft", "first", "second", "published"]


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def crossed(rng: np.random.Generator, problems: int, seeds: int, noise: tuple[float, float, float]) -> np.ndarray:
    """A table with problem, seed and cell noise of the given standard deviations, around 0.5."""
    p, s, c = noise
    return (
        0.5
        + p * rng.normal(size=(problems, 1))
        + s * rng.normal(size=(1, seeds))
        + c * rng.normal(size=(problems, seeds))
    )


def tables_of(
    rng: np.random.Generator, scores: tuple[float, ...], longer: tuple[float, ...] | None = None, seeds: int = 8
) -> Tables:
    """Candidates whose scores differ from 0.5 by `scores`, and their longer runs, on the same 200 problems."""
    base = 0.2 * rng.normal(size=(200, 1))
    wanted = [(score, seeds) for score in scores] + [(score, 3 if longer else 0) for score in longer or scores]
    return Tables([base + score + crossed(rng, 200, count, (0, 0.01, 0.1)) for score, count in wanted])


def race_of(evidence: Tables, published: int | None = 3, **changes: object) -> Confirmation:
    """The verdict of a race that goes on as long as there are tables."""
    rules = {"seeds": 8, "longer": None, "detect": 0.05, **changes}
    count = len(evidence.available) // 2
    race = Finals(Line(count, published), FinalsSettings(**rules), evidence)
    replay(race, evidence.available)
    return conclude(race, evidence, TITLES[:count], generator(0), resamples=50)


@pytest.fixture(scope="module")
def honesty() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "honesty.py"
    spec = importlib.util.spec_from_file_location("honesty_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_design_that_leads_everything_gets_three_answers() -> None:
    found = race_of(tables_of(generator(0), (0.0, 0.3, 0.1, 0.15), (0.0, 0.3, 0.1, 0.15)), longer=2.0)
    assert (found.outcome, found.winner, found.undecided) == (Outcome.BETTER, "first", ())
    assert found.against_published is not None and found.against_published.settled
    assert found.against_published.effect == pytest.approx(0.15, abs=0.03)
    assert [each.rival for each in found.lasting] == ["sft", "published"]
    assert {each.trend for each in found.lasting} == {Trend.HOLDS}
    assert found.lasting[0].shorter == pytest.approx(0.3, abs=0.03)
    assert json.loads(json.dumps(found.as_dict()))["lasting"][0]["trend"] == "holds"


@pytest.mark.parametrize(("longer", "trend"), [(0.0, Trend.SHRINKS), (0.6, Trend.GROWS), (0.3, Trend.HOLDS)])
def test_what_becomes_of_a_lead_in_a_longer_training(longer: float, trend: Trend) -> None:
    found = race_of(tables_of(generator(1), (0.0, 0.3), (0.0, longer)), published=None, longer=3.0)
    (lasting,) = found.lasting
    assert lasting.trend is trend and lasting.longer == pytest.approx(longer, abs=0.03)
    assert (lasting.low > 0) == (trend is Trend.GROWS) and (lasting.high < 0) == (trend is Trend.SHRINKS)


def test_a_published_objective_may_be_the_best() -> None:
    found = race_of(tables_of(generator(2), (0.0, 0.0, 0.0, 0.3)))
    assert (found.outcome, found.winner) == (Outcome.BETTER, "published")
    rival = found.against_published
    assert rival is not None and not rival.settled and rival.rival == "published" and rival.effect < 0


def test_a_lead_over_sft_need_not_be_one_over_what_is_published() -> None:
    found = race_of(tables_of(generator(3), (0.0, 0.3, 0.0, 0.3)))
    assert found.winner == "first" and found.against_published is not None
    assert not found.against_published.settled
    assert found.against_published.low < 0 < found.against_published.high


def test_what_is_published_gets_its_own_answer_though_a_design_has_won() -> None:
    found = race_of(tables_of(generator(0), (0.0, 0.3, 0.1, 0.27)))
    published = next(each for each in found.comparisons if each.title == "published")
    assert found.winner == "first" and published.outcome is Outcome.BETTER and published.low > 0


@pytest.mark.parametrize("score", [0.0, 0.27, 0.29])
def test_a_small_p_value_is_told_of_claims_alone(score: float) -> None:
    for each in race_of(tables_of(generator(0), (0.0, 0.3, 0.1, score))).comparisons:
        assert (each.adjusted_p_value <= 0.05) == (each.outcome is not Outcome.SAME), each


def test_without_a_rival_nothing_is_said_of_one() -> None:
    found = race_of(tables_of(generator(4), (0.0, 0.3)), published=None)
    assert found.winner == "first" and found.against_published is None


def test_worse_candidates_are_called_worse_and_leave_early() -> None:
    found = race_of(tables_of(generator(5), (0.3, 0.0, 0.1, 0.0)), detect=0.4)
    assert (found.outcome, found.winner) == (Outcome.SAME, None) or found.outcome is Outcome.WORSE
    assert found.trainings < 16


def test_a_race_that_was_cut_says_what_is_open() -> None:
    evidence = tables_of(generator(6), (0.0, 0.3, 0.0, 0.0), (0.0, 0.3, 0.0, 0.0))
    cut = {
        seeds: race_of(
            Tables([table[:, :count] for table, count in zip(evidence._tables, seeds, strict=True)]), longer=2.0
        )
        for seeds in ((2, 2, 2, 0, 0, 0, 0, 0), (8, 8, 8, 0, 0, 0, 0, 0), (8, 8, 8, 8, 1, 1, 1, 1))
    }
    assert [found.undecided for found in cut.values()] == [
        ("sft", "published", "length"),
        ("published", "length"),
        ("length",),
    ]
    assert [found.winner for found in cut.values()] == [None, "first", "first"]


@given(st.integers(0, 10_000), st.floats(-0.3, 0.3))
@settings(max_examples=20)
def test_the_verdict_agrees_with_its_intervals(seed: int, lift: float) -> None:
    found = race_of(tables_of(generator(seed), (0.0, lift, lift / 2, -lift)))
    for each in found.comparisons:
        assert (each.outcome is Outcome.BETTER) == (each.low > 0)
        assert (each.outcome is Outcome.WORSE) == (each.high < 0)
        assert each.low <= each.effect <= each.high
        assert abs(each.shrunken) <= abs(each.effect) + 1e-12
    assert (found.winner is not None) == (found.outcome is Outcome.BETTER)


def test_copies_of_sft_are_not_distinguishable() -> None:
    table = generator(4).random((20, 8))
    found = race_of(Tables([table, table, *[np.zeros((20, 0))] * 2]), published=None)
    assert found.outcome is Outcome.SAME and abs(found.comparisons[0].effect) < 0.1


@pytest.mark.slow
def test_a_null_space_has_no_winner_and_a_real_one_is_found(honesty: ModuleType) -> None:
    """A small version of benchmarks/honesty.py; the bounds are the targets with three standard errors of room."""
    world = honesty.World(trials=16, problems=128, report_problems=256, seeds=8)
    null = honesty.run(world, 40, 0.0)
    assert np.mean([study.better for study in null]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 40)
    assert np.mean([study.naive_lead for study in null]) > 0.03  # what luck alone would have announced
    real = honesty.run(world, 20, 0.12)
    assert np.mean([study.true_winner for study in real]) >= 0.7


def test_the_simulated_lift_is_the_stated_one(honesty: ModuleType) -> None:
    world = honesty.World()
    lift = honesty._centre(world, 0.08) - honesty._centre(world)
    rng = generator(7)
    difficulty = honesty._centre(world) + world.difficulty * rng.normal(size=40_000)
    means = [
        np.mean([honesty._run(world, difficulty, design, lift, rng).mean() for _ in range(20)]) for design in (0, 2)
    ]
    assert means[0] == pytest.approx(0.4, abs=0.02)
    assert means[1] - means[0] == pytest.approx(0.08, abs=0.02)
