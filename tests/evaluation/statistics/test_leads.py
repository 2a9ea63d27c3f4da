"""Contrasts of mean scores: Welch's test where nothing is borrowed, and what borrowing does."""

import numpy as np
import pytest
from scipy import stats

from qtarget.evaluation.statistics import leads
from qtarget.evaluation.statistics.evidence import Simulated, Tables, World
from qtarget.evaluation.statistics.leads import Runs, eventual, lead, steadied


def runs_of(*scores: list[float]) -> Runs:
    tables = [np.array(each) for each in scores]
    return Runs(
        np.array([[len(each) for each in tables]]),
        np.array([[each.mean() for each in tables]]),
        np.array([[each.var(ddof=1) if len(each) > 1 else 0.0 for each in tables]]),
    )


def nothing(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(1), np.zeros((1, count))


def test_two_candidates_that_borrow_nothing_are_welchs_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leads, "BORROWED", 0)
    monkeypatch.setattr(leads, "CAUTION", 0.0)
    ours, theirs = [0.51, 0.55, 0.49, 0.60], [0.40, 0.47, 0.31]
    found = lead(runs_of(theirs, ours), np.array([[-1.0, 1.0]]), *nothing(2), problems=100)
    expected = stats.ttest_ind(ours, theirs, equal_var=False, alternative="greater")
    assert found.p_value[0] == pytest.approx(float(expected.pvalue))
    assert found.freedom[0] == pytest.approx(float(expected.df))
    half = found.half_width(0.05)[0]
    assert found.effect[0] - half == pytest.approx(expected.confidence_interval(0.95).low)


def test_two_runs_that_agree_by_chance_borrow_from_noisier_ones() -> None:
    runs = runs_of([0.5, 0.5001, 0.5002], [0.60, 0.50, 0.70])
    variances, freedom = steadied(runs, np.zeros((1, 2)))
    own = runs.variances[0]
    assert variances[0, 1] == own[1] and freedom[0, 1] == 2, "the noisier one stands as it is"
    assert variances[0, 0] == pytest.approx((2 * own[0] + 2 * own[1]) / 4) and freedom[0, 0] == 4


def test_problems_count_once() -> None:
    """With P problems and no other noise a run's score varies by c; its lead by 2 c / n, as the problems say."""
    rng = np.random.default_rng(0)
    tables = [0.5 + 0.4 * rng.normal(size=(400, 60)) for _ in range(2)]
    evidence = Tables([*tables, *(np.zeros((400, 0)) for _ in range(2))])
    seeds, weights = np.array([[60, 60, 0, 0]]), np.array([[-1.0, 1.0, 0.0, 0.0]])
    found = lead(evidence.runs(seeds), weights, evidence.problem(weights, seeds), evidence.cell(seeds), 400)
    assert evidence.cell(seeds)[0, 0] == pytest.approx(0.16 / 400, rel=0.1)
    assert found.error[0] == pytest.approx(np.sqrt(2 * 0.16 / 400 / 60), rel=0.25)


def test_the_variance_to_expect_of_more_runs_is_the_one_they_have() -> None:
    """Problems on which a lead hangs stay; what a run and its sampling add is divided by the runs."""
    rng = np.random.default_rng(1)
    hangs = 0.3 * rng.normal(size=(2, 300, 1))  # of a design and a problem, in every run
    tables = [0.5 + each + 0.03 * rng.normal(size=(1, 40)) + 0.4 * rng.normal(size=(300, 40)) for each in hangs]
    evidence = Tables([*tables, *(np.zeros((300, 0)) for _ in range(2))])
    weights, few, many = np.array([[-1.0, 1.0, 0.0, 0.0]]), np.array([[8, 6, 0, 0]]), np.array([[40, 40, 0, 0]])
    known = lead(evidence.runs(many), weights, evidence.problem(weights, many), evidence.cell(many), 300)
    expected = eventual(evidence.runs(few), weights, evidence.problem(weights, few), evidence.cell(few), 40)
    assert np.sqrt(expected[0]) == pytest.approx(known.error[0], rel=0.1)
    alike = eventual(evidence.runs(many), weights, evidence.problem(weights, many), evidence.cell(many), 40)
    assert np.sqrt(alike[0]) == pytest.approx(known.error[0])


def test_the_change_of_a_lead_is_a_contrast_of_four() -> None:
    runs = runs_of([0.2, 0.2, 0.2], [0.5, 0.5, 0.5], [0.3, 0.3], [0.4, 0.4])
    found = lead(runs, np.array([[1.0, -1.0, -1.0, 1.0]]), *nothing(4), problems=50)
    assert found.effect[0] == pytest.approx(0.1 - 0.3)
    assert found.error[0] == pytest.approx(0, abs=1e-9) and found.p_value[0] == pytest.approx(1)


def test_no_lead_without_noise_is_no_evidence() -> None:
    found = lead(runs_of([0.4, 0.4], [0.4, 0.4]), np.array([[-1.0, 1.0]]), *nothing(2), problems=50)
    assert found.p_value[0] == 0.5


def test_simulated_runs_have_the_noise_of_their_world() -> None:
    world = World((0.1, 0.3), (0.02, 0.05), 0.01, shared=0.5)
    evidence = Simulated(world, 40, 300, np.random.default_rng(1))
    runs = evidence.runs(np.full((300, 4), 40))
    assert runs.means.mean(axis=0) == pytest.approx([0.1, 0.3, 0.1, 0.3], abs=0.003)
    assert runs.variances.mean(axis=0) == pytest.approx([5e-4, 26e-4, 5e-4, 26e-4], rel=0.05)
    together = np.corrcoef(runs.means[:, 0], runs.means[:, 1])[0, 1]
    assert 0.3 < together < 0.6, "one seed moves both, the problems' part does not"


@pytest.mark.parametrize(
    "tables",
    [
        [np.zeros((1, 2)), np.zeros((1, 2))],
        [np.zeros((5, 2)), np.zeros((4, 2))],
        [np.full((5, 2), np.nan)] * 2,
        [[1.0]],
    ],
)
def test_tables_must_match(tables: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="of the same problems"):
        Tables(tables)
