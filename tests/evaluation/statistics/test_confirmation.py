"""Confirmation: variances against an analysis of variance and simulation, honest verdicts, agreement with intervals."""

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
from scipy import stats

from qtarget.evaluation.statistics.confirmation import Outcome, confirm


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


def test_one_design_is_the_textbook_two_way_random_analysis():
    """V = (MS_problem + MS_seed - MS_cell) / (P S) when the seeds matter (Cochran 1951), from plain sums."""
    rng = generator(0)
    sft, design = crossed(rng, 40, 4, (0.3, 0.2, 0.2)), crossed(rng, 40, 4, (0.3, 0.2, 0.2))
    d = design - sft
    rows, columns, mean = d.mean(axis=1), d.mean(axis=0), d.mean()
    ms_problem = 4 * sum((r - mean) ** 2 for r in rows) / 39
    ms_seed = 40 * sum((c - mean) ** 2 for c in columns) / 3
    cell = sum((d[i, j] - rows[i] - columns[j] + mean) ** 2 for i in range(40) for j in range(4)) / (39 * 3)
    assert ms_seed > cell
    variance = (ms_problem + ms_seed - cell) / 160
    freedom = variance**2 / (((ms_problem / 160) ** 2) / 39 + ((ms_seed / 160) ** 2) / 3 + ((cell / 160) ** 2) / 117)
    [found] = confirm(sft, {"x": design}, rng).comparisons
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.freedom == pytest.approx(freedom)
    assert found.p_value == pytest.approx(stats.t.sf(abs(mean) / math.sqrt(variance), freedom))


def test_without_seed_noise_it_is_the_paired_t_test_over_problems():
    rng = generator(1)
    sft, design = rng.normal(size=(200, 1)).repeat(3, axis=1), rng.normal(size=(200, 1)).repeat(3, axis=1)
    [found] = confirm(sft, {"x": design}, rng).comparisons
    expected = stats.ttest_rel(design[:, 0], sft[:, 0])
    assert 2 * found.p_value == pytest.approx(float(expected.pvalue), rel=1e-6)
    assert found.seed_error == 0


@pytest.mark.parametrize("noise", [(0.3, 0.0, 0.3), (0.2, 0.03, 0.4), (0.1, 0.1, 0.1)])
def test_the_variance_matches_the_spread_of_repeated_confirmations(noise):
    rng = generator(2)
    effects, variances, errors = [], [], 0
    for _ in range(400):
        tables = [crossed(rng, 60, 3, noise) for _ in range(3)]
        found = confirm(tables[0], {"a": tables[1], "b": tables[2]}, rng, resamples=10)
        effects.append(found.comparisons[0].effect)
        variances.append(found.comparisons[0].standard_error ** 2)
        errors += found.outcome is Outcome.BETTER
    assert np.mean(variances) > 0.85 * np.var(effects)
    assert np.mean(variances) < 1.4 * np.var(effects)  # seed noise is not let below nothing
    assert errors / 400 <= 0.08  # 0.05 and three standard errors


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(-0.3, 0.3))
@settings(max_examples=60)
def test_the_verdict_agrees_with_the_interval_and_the_p_value(seed, count, lift):
    rng = generator(seed)
    sft = crossed(rng, 30, 3, (0.2, 0.05, 0.2))
    designs = {str(i): crossed(rng, 30, 3, (0.2, 0.05, 0.2)) + lift * i for i in range(count)}
    found = confirm(sft, designs, rng, resamples=10)
    for comparison in found.comparisons:
        excludes = comparison.low > 0 or comparison.high < 0
        assert (comparison.outcome is not Outcome.SAME) == excludes == (comparison.adjusted_p_value <= 0.05)
        assert comparison.low <= comparison.effect <= comparison.high
        assert abs(comparison.shrunken) <= abs(comparison.effect) + 1e-12


def test_better_worse_and_the_winner():
    rng = generator(3)
    sft = crossed(rng, 300, 3, (0.3, 0.01, 0.2))
    tables = {
        "worse": sft - 0.2 + crossed(rng, 300, 3, (0.05, 0.01, 0.1)) - 0.5,
        "best": sft + 0.2 + crossed(rng, 300, 3, (0.05, 0.01, 0.1)) - 0.5,
        "same": sft + crossed(rng, 300, 3, (0.05, 0.01, 0.1)) - 0.5,
        "good": sft + 0.1 + crossed(rng, 300, 3, (0.05, 0.01, 0.1)) - 0.5,
    }
    found = confirm(sft, tables, rng)
    assert {c.title: c.outcome.value for c in found.comparisons} == {
        "worse": "worse",
        "best": "better than SFT",
        "same": "not distinguishable from SFT",
        "good": "better than SFT",
    }
    assert (found.outcome, found.winner) == (Outcome.BETTER, "best")
    assert str(found).startswith("best: better than SFT, +")
    assert json.loads(json.dumps(found.as_dict()))["outcome"] == "better than SFT"
    assert confirm(sft, {"worse": tables["worse"]}, rng).outcome is Outcome.WORSE
    only_same = confirm(sft, {"same": tables["same"], "worse": tables["worse"]}, rng)
    assert (only_same.outcome, only_same.winner) == (Outcome.SAME, None)


def test_a_copy_of_sft_is_not_distinguishable():
    sft = generator(4).random((20, 3))
    found = confirm(sft, {"copy": sft.copy()}, generator(5))
    assert found.outcome is Outcome.SAME
    assert found.comparisons[0].low == found.comparisons[0].high == 0


@pytest.mark.parametrize(
    ("sft", "designs", "message"),
    [
        (np.zeros((5, 3)), {}, "at least one design"),
        (np.zeros((5, 1)), {"x": np.zeros((5, 1))}, "at least 2 problems and 2 seeds"),
        (np.zeros((5, 3)), {"x": np.zeros((4, 3))}, r"must cover the problems and seeds of SFT \(5, 3\), not \(4, 3\)"),
        (np.zeros((5, 3)), {"x": np.full((5, 3), np.nan)}, "must be finite"),
    ],
)
def test_tables_must_match(sft, designs, message):
    with pytest.raises(ValueError, match=message):
        confirm(sft, designs, generator(6))


def test_a_null_space_has_no_winner_and_a_real_one_is_found(honesty):
    """A small version of benchmarks/honesty.py; the bounds are the targets with three standard errors of room."""
    world = honesty.World(trials=16, problems=128)
    null = honesty.run(world, 60, 0.0)
    assert np.mean([study.better for study in null]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)
    assert np.mean([study.naive_lead for study in null]) > 0.03  # what luck alone would have announced
    assert abs(np.mean([study.effect for study in null])) < 0.01
    real = honesty.run(world, 30, 0.12)
    assert np.mean([study.true_winner for study in real]) >= 0.8


def test_the_simulated_lift_is_the_stated_one(honesty):
    world = honesty.World()
    lift = honesty._centre(world, 0.08) - honesty._centre(world)
    rng = generator(7)
    difficulty = honesty._centre(world) + world.difficulty * rng.normal(size=40_000)
    means = [
        np.mean([honesty._run(world, difficulty, design, lift, rng).mean() for _ in range(20)]) for design in (0, 2)
    ]
    assert means[0] == pytest.approx(0.4, abs=0.02)
    assert means[1] - means[0] == pytest.approx(0.08, abs=0.02)
