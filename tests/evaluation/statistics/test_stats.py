"""Statistics against oracles written another way: scipy, enumeration, simulation."""

import inspect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from qtarget.evaluation.statistics.stats import (
    average_at_k,
    bootstrap_interval,
    holm,
    pass_at_k,
    shrink,
    sign_flip_test,
    standard_error,
    wilson,
)

SEED = "rng" if "rng" in inspect.signature(scipy_stats.bootstrap).parameters else "random_state"
"""The name that scipy 1.15 changed; until that is the lowest version."""


def binary(generator: np.random.Generator, problems: int, samples: int) -> np.ndarray:
    return (generator.random((problems, samples)) < generator.random((problems, 1))).astype(float)


def test_average_at_k_is_the_mean_of_problem_means():
    correct = [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert average_at_k(correct) == pytest.approx((0.5 + 0 + 1) / 3)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_equals_the_mean_over_all_subsets(k):
    correct = binary(np.random.default_rng(0), 7, 5)
    subsets = list(itertools.combinations(range(5), k))
    expected = np.mean([[row[list(subset)].max() for subset in subsets] for row in correct])
    assert pass_at_k(correct, k) == pytest.approx(float(expected), abs=1e-12)


def test_pass_at_k_is_stable_for_many_samples():
    correct = np.zeros((1, 20_000))
    correct[0, 0] = 1
    assert pass_at_k(correct, 10_000) == pytest.approx(0.5, abs=1e-9)


def test_pass_at_1_is_average_at_k():
    correct = binary(np.random.default_rng(1), 9, 4)
    assert pass_at_k(correct, 1) == pytest.approx(average_at_k(correct))


@pytest.mark.parametrize("k", [0, 6])
def test_pass_at_k_needs_enough_samples(k):
    with pytest.raises(ValueError, match="between 1 and the 5 samples"):
        pass_at_k(np.ones((2, 5)), k)


class TestStandardError:
    def test_without_clusters_it_is_scipys(self):
        values = np.random.default_rng(2).normal(size=50)
        assert standard_error(values) == pytest.approx(float(scipy_stats.sem(values)))

    def test_equal_clusters_reduce_to_cluster_means(self):
        values = np.random.default_rng(3).normal(size=(20, 4)) + np.random.default_rng(4).normal(size=(20, 1))
        clusters = np.repeat(np.arange(20), 4)
        expected = float(scipy_stats.sem(values.mean(axis=1)))
        assert standard_error(values.ravel(), clusters) == pytest.approx(expected)

    def test_unequal_clusters_equal_the_double_sum(self):
        """Miller 2024 writes the variance as a sum over pairs within a cluster."""
        generator = np.random.default_rng(5)
        values, clusters = generator.random(30), generator.integers(0, 8, 30)
        centred = values - values.mean()
        pairs = sum(centred[i] * centred[j] for i in range(30) for j in range(30) if clusters[i] == clusters[j])
        groups = len(set(clusters.tolist()))
        expected = math.sqrt(groups / (groups - 1) * pairs) / 30
        assert standard_error(values, clusters) == pytest.approx(expected)

    def test_it_matches_the_spread_of_simulated_scores(self):
        generator = np.random.default_rng(6)
        ability = generator.beta(1, 1, size=(4000, 60, 1))
        correct = generator.random((4000, 60, 4)) < ability
        scores = correct.mean(axis=(1, 2))
        clusters = np.repeat(np.arange(60), 4)
        estimated = np.mean([standard_error(run.ravel().astype(float), clusters) for run in correct[:400]])
        assert estimated == pytest.approx(float(scores.std()), rel=0.05)

    def test_one_cluster_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 clusters, but got 1"):
            standard_error([0.1, 0.2], [7, 7])


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (10, 10), (3, 10), (1, 1), (250, 1319)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(successes, total, confidence):
    expected = scipy_stats.binomtest(successes, total).proportion_ci(confidence, method="wilson")
    assert wilson(successes, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "total"), [(1, 0), (11, 10), (-1, 10)])
def test_wilson_refuses_impossible_counts(successes, total):
    with pytest.raises(ValueError, match="must be in"):
        wilson(successes, total)


class TestBootstrap:
    def test_it_agrees_with_scipys_percentile_interval(self):
        differences = np.random.default_rng(7).integers(-1, 2, 200).astype(float)
        expected = scipy_stats.bootstrap(
            (differences,), np.mean, method="percentile", n_resamples=20_000, **{SEED: np.random.default_rng(8)}
        ).confidence_interval
        found = bootstrap_interval(differences, np.random.default_rng(9), resamples=20_000)
        assert found == pytest.approx((expected.low, expected.high), abs=0.01)

    def test_clusters_widen_it_as_whole_rows_resampled(self):
        generator = np.random.default_rng(10)
        rows = generator.normal(size=(40, 1)) + 0.1 * generator.normal(size=(40, 5))
        clusters = np.repeat(np.arange(40), 5)
        low, high = bootstrap_interval(rows.ravel(), np.random.default_rng(11), clusters=clusters)
        expected = bootstrap_interval(rows.mean(axis=1), np.random.default_rng(12))
        assert (low, high) == pytest.approx(expected, abs=0.03)
        narrow = bootstrap_interval(rows.ravel(), np.random.default_rng(11))
        assert high - low > 1.8 * (narrow[1] - narrow[0])

    def test_the_generator_decides(self):
        differences = np.linspace(-1, 1, 30)
        first, again = (bootstrap_interval(differences, np.random.default_rng(1)) for _ in range(2))
        assert first == again


class TestSignFlip:
    @given(hnp.arrays(np.int64, st.integers(1, 10), elements=st.integers(-4, 4)), st.sampled_from([1, 3, 4, 16]))
    @settings(max_examples=60)
    def test_it_equals_enumeration(self, units, denominator):
        differences = units / denominator
        signs = np.array(list(itertools.product([-1, 1], repeat=len(units))))
        sums = np.abs(signs @ units)
        assert sign_flip_test(differences) == pytest.approx(float(np.mean(sums >= abs(units.sum()))), abs=1e-12)

    def test_it_equals_scipys_exact_permutation_test(self):
        generator = np.random.default_rng(13)
        a, b = generator.integers(0, 5, (2, 12)) / 4
        expected = scipy_stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10**5
        ).pvalue
        assert sign_flip_test(a - b) == pytest.approx(float(expected), abs=1e-9)

    def test_for_right_and_wrong_it_is_the_exact_mcnemar_test(self):
        differences = np.array([1.0] * 40 + [-1.0] * 21 + [0.0] * 900)
        assert sign_flip_test(differences) == pytest.approx(scipy_stats.binomtest(21, 61).pvalue, rel=1e-9)

    def test_values_off_every_lattice_are_refused(self):
        with pytest.raises(ValueError, match="multiples of 1/10000"):
            sign_flip_test([math.pi, 1.0])


class TestHolm:
    @given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(0, 1)))
    @settings(max_examples=100)
    def test_it_is_the_closure_of_bonferroni(self, p_values):
        """Holm rejects exactly what every intersection's Bonferroni test rejects (closed testing)."""
        count = len(p_values)
        subsets = [list(s) for r in range(1, count + 1) for s in itertools.combinations(range(count), r)]
        expected = [max(min(1.0, len(s) * min(p_values[s])) for s in subsets if i in s) for i in range(count)]
        assert holm(p_values) == pytest.approx(expected, abs=1e-12)


class TestShrink:
    def test_equal_errors_give_the_textbook_weights(self):
        """τ² = max(0, mean squared deviation - s²) maximises the likelihood when all s are equal."""
        x = np.array([0.1, 0.5, 0.2, 0.9, 0.4])
        shrunken = shrink(x, np.full(5, 0.1))
        variance = np.mean((x - x.mean()) ** 2) - 0.01
        expected = x.mean() + variance / (variance + 0.01) * (x - x.mean())
        assert shrunken.estimates == pytest.approx(expected, abs=1e-6)
        assert shrunken.spread == pytest.approx(math.sqrt(variance), abs=1e-6)
        assert shrunken.centre == pytest.approx(x.mean())

    @pytest.mark.slow
    def test_unequal_errors_reach_the_likelihoods_maximum(self):
        generator = np.random.default_rng(14)
        s = generator.uniform(0.05, 0.3, 12)
        x = generator.normal(0.4, 0.2, 12) + s * generator.normal(size=12)
        shrunken = shrink(x, s)

        def likelihood(mu: float, tau: float) -> float:
            return float(scipy_stats.norm.logpdf(x, mu, np.sqrt(tau**2 + s**2)).sum())

        best = likelihood(shrunken.centre, shrunken.spread)
        grid = itertools.product(np.linspace(0, 1, 101), np.linspace(0, 1, 201))
        assert best >= max(likelihood(mu, tau) for mu, tau in grid) - 1e-9

    def test_chance_alone_is_shrunk_to_the_common_mean(self):
        x = np.array([0.50, 0.51, 0.49, 0.50])
        shrunken = shrink(x, np.full(4, 0.1))
        assert shrunken.spread == pytest.approx(0, abs=1e-9)
        assert shrunken.estimates == pytest.approx(np.full(4, 0.5), abs=1e-9)

    def test_a_given_centre_is_kept(self):
        shrunken = shrink([0.2, 0.3], [0.1, 0.1], centre=0.0)
        assert shrunken.centre == 0
        assert (np.abs(shrunken.estimates) < [0.2, 0.3]).all()

    def test_it_removes_the_winners_curse(self):
        """40 designs, s.e. 3 points, true spread 2: the best raw score is overrated, its shrunken value is not."""
        generator = np.random.default_rng(15)
        raw, corrected = [], []
        for _ in range(150):
            truth = generator.normal(0.5, 0.02, 40)
            x = truth + 0.03 * generator.normal(size=40)
            shrunken = shrink(x, np.full(40, 0.03)).estimates
            best = int(np.argmax(x))
            raw.append(x[best] - truth[best])
            corrected.append(shrunken[best] - truth[best])
        assert np.mean(raw) > 0.04
        assert abs(np.mean(corrected)) < 0.008

    @pytest.mark.parametrize(("x", "s"), [([0.1], [0.1]), ([0.1, 0.2], [0.1, 0.0]), ([0.1, 0.2], [0.1])])
    def test_errors_must_be_positive_and_matching(self, x, s):
        with pytest.raises(ValueError, match="must be positive, one for each"):
            shrink(x, s)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [[1.0, 2.0]]])
def test_vectors_must_be_finite_and_flat(values):
    with pytest.raises(ValueError, match="non-empty vector of finite numbers"):
        holm(values)
