"""Racing: the wealth is a fair game under the hypothesis, errors stay below the rate, hopeless trials stop early."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from qtarget.evaluation.settings import RacingSettings
from qtarget.evaluation.statistics.racing import PROOF, evidence, looks, predictions, race, racer, wealth

SETTINGS = RacingSettings(error_rate=0.1, margin=0.0, block=8)


def correct(generator: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    return (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


@pytest.mark.parametrize(
    ("differences", "upper"), [([1, -1, 0, 0, -1, 1], 1.0), ([0.5, -0.5, 0.25, 0, -0.25, -0.75], 0.8)]
)
def test_the_wealth_is_a_fair_game_over_all_orders(differences, upper):
    """At the boundary of the hypothesis its mean over all orders is 1 after every item, by exact enumeration."""
    values = np.array(differences, dtype=float)
    orders = np.array(list(itertools.permutations(values)))
    means = np.mean([wealth(order, len(values), float(values.mean()), upper) for order in orders], axis=0)
    assert means[:-1] == pytest.approx(np.ones(len(values) - 1), abs=1e-9)


def test_inside_the_hypothesis_it_shrinks():
    values = np.array([1.0, -1.0, 0.0, 1.0, 0.0, 1.0])
    orders = np.array(list(itertools.permutations(values)))
    means = np.mean([wealth(order, 6, 0.1, 1.0) for order in orders], axis=0)
    assert (means[:-1] < 1).all()
    assert (np.diff(means[:-1]) < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("error_rate", [0.05, 0.2])
@pytest.mark.parametrize("with_reference", [False, True])
def test_an_equal_trial_is_stopped_no_more_often_than_the_rate(error_rate, with_reference):
    """Trials that end exactly level with the incumbent, looked at after every block; 600 random orders."""
    generator = np.random.default_rng(1)
    settings = RacingSettings(error_rate=error_rate, margin=0.0, block=8)
    stopped = 0
    for _ in range(600):
        difficulty = generator.normal(0, 1.5, 96)
        incumbent, trial = correct(generator, np.tile(difficulty, (2, 1)))
        gap = int(incumbent.sum() - trial.sum())
        changed = np.flatnonzero(trial == (0 if gap > 0 else 1))
        trial[generator.permutation(changed)[: abs(gap)]] = 1.0 if gap > 0 else 0.0
        assert trial.sum() == incumbent.sum()
        reference = correct(generator, np.tile(difficulty, (5, 1))).mean(axis=0) if with_reference else None
        looks = range(8, 96, 8)
        stopped += any(race(trial[:n], incumbent, settings, reference=reference).stop for n in looks)
    assert stopped / 600 <= error_rate


def test_a_hopeless_trial_stops_early_and_a_better_one_never():
    generator = np.random.default_rng(2)
    worse, better = [], 0
    for _ in range(100):
        difficulty = generator.normal(0, 1.5, 128)
        incumbent = correct(generator, difficulty + 0.5)
        low, high = correct(generator, difficulty - 2.0), correct(generator, difficulty + 1.5)
        worse.append(next(n for n in [*range(8, 128, 8), 128] if n == 128 or race(low[:n], incumbent, SETTINGS).stop))
        better += any(race(high[:n], incumbent, SETTINGS).stop for n in range(8, 128, 8))
    assert np.mean(worse) < 50
    assert better == 0


def test_a_reference_from_many_trials_stops_earlier_than_the_incumbent_alone():
    generator = np.random.default_rng(3)
    with_reference, alone = [], []
    for _ in range(150):
        difficulty = generator.normal(0, 1.5, 128)
        incumbent, trial = correct(generator, difficulty + 0.5), correct(generator, difficulty - 0.7)
        reference = correct(generator, np.tile(difficulty, (8, 1))).mean(axis=0)
        for lengths, known in ((with_reference, reference), (alone, None)):
            looks = [n for n in range(8, 128, 8) if race(trial[:n], incumbent, SETTINGS, reference=known).stop]
            lengths.append(min(looks, default=128))
    assert np.mean(with_reference) < 0.92 * np.mean(alone)


def test_what_cannot_be_made_up_stops_at_once():
    incumbent = np.array([1.0] * 10 + [0.0] * 2)
    decision = race(np.zeros(6), incumbent, RacingSettings(error_rate=1e-6, margin=0.0))
    assert decision.stop  # 6 wins at most, where the incumbent has 10
    assert decision.e_value == PROOF
    assert not race(np.zeros(2), incumbent, RacingSettings(error_rate=1e-6, margin=0.0)).stop


def test_looks_begin_with_a_block_grow_and_end_with_the_last_problem():
    assert looks(100, 16, 1.0) == [16, 32, 48, 64, 80, 96, 100]
    assert looks(256, 16, 2.0) == [16, 32, 64, 128, 256]
    assert looks(10, 16, 1.5) == [10]
    ends = looks(1000, 8, 1.5)
    assert all(second - first >= 8 for first, second in itertools.pairwise(ends[:-1])) and ends[-1] == 1000


def test_the_evidence_of_a_whole_row_is_that_of_its_prefixes():
    """A decision looks at no score that is not there yet."""
    generator = np.random.default_rng(6)
    incumbent, trial = correct(generator, generator.normal([[1], [-1]], 1.5, (2, 64)))
    reference = generator.uniform(0.1, 0.9, 64)
    whole = evidence(trial, float(incumbent.mean()), reference)
    prefixes = [race(trial[:n], incumbent, SETTINGS, reference=reference).e_value for n in range(1, 65)]
    assert prefixes == pytest.approx(np.minimum(whole, PROOF))
    assert (whole[1:] >= whole[:-1]).all()


def test_predictions_trust_many_trials_more_than_few():
    scores = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert predictions(scores, scores[0]) == pytest.approx([0.875, 0.375, 0.875, 0.875])
    many = np.vstack([scores] * 9)
    assert predictions(many, scores[0]) == pytest.approx([0.975, 0.075, 0.975, 0.975])


def test_a_margin_stops_what_is_level():
    generator = np.random.default_rng(4)
    scores = correct(generator, generator.normal(0, 1.5, 256))
    assert not race(scores[:200], scores, SETTINGS).stop
    assert race(scores[:200], scores, RacingSettings(error_rate=0.1, margin=0.3)).stop


def test_the_decision_is_a_pure_function_with_a_readable_text():
    trial, incumbent = np.zeros(16), np.ones(64)
    first, again = (race(trial, incumbent, SETTINGS) for _ in range(2))
    assert first == again
    assert str(first).startswith("stopped: -100.0 points after 16 problems, evidence ")


def test_the_callback_reports_and_never_stops_a_finished_evaluation():
    decisions: list[object] = []
    decide = racer([1.0] * 12 + [0.0] * 4, SETTINGS, on_decision=decisions.append)
    assert [decide([0.0] * n) for n in (1, 8, 16)] == [False, True, False]
    assert len(decisions) == 3


@pytest.mark.parametrize(
    ("trial", "incumbent", "reference"),
    [([], [1.0], None), ([1.0, 1.0], [1.0], None), ([1.0], [1.0, 0.0], [0.5])],
)
def test_scores_must_match(trial, incumbent, reference):
    with pytest.raises(ValueError, match=r"scores, but got \d; compare only"):
        race(trial, incumbent, SETTINGS, reference=reference)


def test_scores_must_be_scores():
    with pytest.raises(ValueError, match=r"`trial` must be a vector of scores in \[0, 1\]"):
        race([1.5], [1.0, 0.0], SETTINGS)


@pytest.fixture(scope="module")
def racing_benchmark() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "racing.py"
    spec = importlib.util.spec_from_file_location("racing_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_replays_a_stored_matrix(tmp_path, monkeypatch, capsys, racing_benchmark):
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 1.5, 96) + generator.normal(-1, 1.5, (12, 1))
    np.savez(tmp_path / "scores.npz", scores=correct(generator, logits))
    monkeypatch.setattr(sys, "argv", ["racing.py", str(tmp_path / "scores.npz"), "--replays", "20"])
    racing_benchmark.main()
    line = capsys.readouterr().out.splitlines()[-1]
    scores, ones, left_out = racing_benchmark.load(tmp_path / "scores.npz")
    found = racing_benchmark.replays(scores, ones, racing_benchmark.Rule(RacingSettings(), "trials"), 20)
    assert left_out == 0
    assert found.tokens < 0.6
    assert found.close >= 0.9
    assert f"{found.close:.1%}" in line
    assert f"{found.tokens:.1%}" in line


def test_the_benchmark_reads_a_study_folder(tmp_path, racing_benchmark):
    for trial, verdicts in {"0": ["correct", "wrong"], "1": ["wrong", "no_answer"], "2": ["correct"]}.items():
        (tmp_path / trial).mkdir()
        rows = [
            {"problem": f"p{i}", "sample": s, "verdict": verdict if s == 0 else "correct", "tokens": 10 + i}
            for i, verdict in enumerate(verdicts)
            for s in range(2)
        ]
        (tmp_path / trial / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, tokens, left_out = racing_benchmark.load(tmp_path)
    assert scores.tolist() == [[1.0, 0.5], [0.5, 0.5]]
    assert tokens.tolist() == [[10.0, 11.0], [10.0, 11.0]]
    assert left_out == 1  # trial 2 lacks a problem
