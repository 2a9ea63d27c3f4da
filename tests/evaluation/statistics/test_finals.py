"""Races: a small version of benchmarks/races.py, and that what was looked at does not depend on what else is there."""

import numpy as np
import pytest

from qtarget.evaluation.statistics import questions
from qtarget.evaluation.statistics.evidence import Simulated, Tables, World
from qtarget.evaluation.statistics.finals import Finals, ahead, give_up, replay
from qtarget.evaluation.statistics.power import Noise, chance, cheapest
from qtarget.evaluation.statistics.settings import FinalsSettings
from qtarget.evaluation.statistics.standing import CLAIMED, GROWS, OVER, RACING, SHRINKS, Line

LINE = Line(4, published=3)
CELL = 0.0125
STUDIES = 400


def raced(world: World, seed: int, detect: float, **changes: object) -> tuple[Finals, float]:
    """(races that are over, mean trainings of the first question)."""
    rules = FinalsSettings(detect=detect, noise=float(np.hypot(world.noise[0], CELL)), **changes)
    races = Finals(LINE, rules, Simulated(world, rules.seeds, STUDIES, np.random.default_rng(seed)), STUDIES)
    while (chosen := np.where(races.stage == RACING, races.next(), -1)).max() >= 0:
        races.take(chosen)
    first = float(races.trainings.mean())
    races.run()
    return races, first


@pytest.mark.slow
@pytest.mark.parametrize("noise", [(0.03,) * 4, (0.10, 0.005, 0.005, 0.005), (0.005, 0.10, 0.005, 0.005)])
@pytest.mark.parametrize("tail", [None, 3.0])
def test_equal_candidates_are_rarely_called_different(noise: tuple[float, ...], tail: float | None) -> None:
    races, first = raced(World((0.0,) * 4, noise, CELL, tail=tail), 1, 1.25 * float(np.hypot(noise[0], CELL)))
    wrong = races.better.any(axis=1) | (races.against_published == CLAIMED)
    wrong |= np.isin(races.trend, (GROWS, SHRINKS)).any(axis=1)
    assert wrong.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)
    assert first < 14 or noise[1] != noise[0]


def test_a_lead_is_found_for_few_trainings() -> None:
    found = {}
    for lead in (0.04, 0.08):
        races, first = raced(World((0.0, 0.0, lead, 0.0), (0.03,) * 4, CELL), 2, 0.04)
        found[lead] = float((races.better[:, 2] & (races.winner == 2)).mean()), first
    assert found[0.04][0] > 0.5 and found[0.04][1] < 19, "measured: 0.6 for 17 trainings"
    assert found[0.08][0] > 0.88 and found[0.08][1] < 13.5, "measured: 0.95 for 12"


def test_a_published_objective_that_is_far_ahead_wins_though_a_design_is_better_than_sft() -> None:
    races, _ = raced(World((0.0, 0.0, 0.10, 0.30), (0.03,) * 4, CELL), 4, 0.04)
    assert (races.stage == OVER).all() and races.better[:, 2].mean() > 0.9
    assert (races.winner == 3).mean() > 0.9 and not (races.against_published == CLAIMED).any()
    behind, _ = raced(World((0.0, 0.0, 0.30, 0.10), (0.03,) * 4, CELL), 4, 0.04)
    assert (behind.winner == 2).mean() > 0.98


def test_more_patience_finds_more() -> None:
    races, first = raced(World((0.0, 0.0, 0.04, 0.0), (0.03,) * 4, CELL), 3, 0.04, patience=12.0)
    assert (races.winner == 2).mean() > 0.75 and first < 28


def tables(seed: int, seeds: int = 10) -> Tables:
    rng = np.random.default_rng(seed)
    scores = (0.4, 0.5, 0.45, 0.42) * 2
    return Tables(
        [score + 0.04 * rng.normal(size=(1, seeds)) + 0.3 * rng.normal(size=(100, seeds)) for score in scores]
    )


@pytest.mark.parametrize("seed", range(4))
def test_runs_ahead_of_what_is_asked_for_change_nothing(seed: int) -> None:
    """The order of looks is that of a race with one engine, however many runs are there already."""
    rules = FinalsSettings(seeds=8, detect=0.08, longer_seeds=3)
    alone = Finals(LINE, rules, tables(seed))
    alone.run()
    bit_by_bit, evidence = Finals(LINE, rules, tables(seed)), tables(seed)
    available = [0] * 8
    while (lacks := replay(bit_by_bit, available)) is not None:
        for index, number in ahead(bit_by_bit, 3):
            available[index] = max(available[index], number + 1)
        assert available[lacks[0]] > lacks[1], "what is lacking is among what comes next"
    assert (bit_by_bit.seeds == alone.seeds).all() and bit_by_bit.winner == alone.winner
    assert [vars(each) | {"seeds": None} for each in bit_by_bit.history] == [
        vars(each) | {"seeds": None} for each in alone.history
    ]
    assert evidence.available[0] >= alone.seeds.max()


def test_nobody_runs_far_ahead_of_the_looks() -> None:
    race = Finals(LINE, FinalsSettings(), tables(0))
    following = ahead(race, 50)
    assert len(following) == len(set(following)) and max(number for _, number in following) == 1


def test_a_candidate_that_cannot_be_trained_is_out_and_the_race_goes_on() -> None:
    race = Finals(LINE, FinalsSettings(seeds=8, longer=None), tables(1))
    for index in (1, 2, 3):
        assert race.stage[0] == RACING
        give_up(race, index)
    assert race.stage[0] == OVER and race.winner[0] == -1


@pytest.mark.parametrize(("second", "winner"), [(0.0, 2), (0.5, 1)])
def test_who_forgets_too_much_wins_only_where_no_other_is_better(second: float, winner: int) -> None:
    rng = np.random.default_rng(5)
    evidence = Tables(
        [score + 0.01 * rng.normal(size=(1, 8)) + 0.3 * rng.normal(size=(200, 8)) for score in (0.2, 0.7, 0.5, 0.2) * 2]
    )
    forgotten = [[0.0] * 8, [0.5] * 8, [second] * 8, [0.0] * 8]
    rules = FinalsSettings(seeds=8, detect=0.05, longer=None, most_forgotten=0.1, patience=50.0)
    race = Finals(LINE, rules, evidence, forgotten=forgotten)
    race.run()
    assert race.stage[0] == OVER and race.winner[0] == winner and race.better[0, 1]
    free = Finals(LINE, rules.model_copy(update={"most_forgotten": None}), evidence, forgotten=forgotten)
    free.run()
    assert free.winner[0] == 1


@pytest.mark.slow
def test_the_cheapest_race_finds_what_is_asked_for() -> None:
    noise, rng = Noise(0.03, CELL, 0.0, 2.0), np.random.default_rng(0)
    settings = cheapest(LINE, noise, rng, detect=0.06, power=0.8)
    found = chance(0.06, noise, settings, LINE, rng)
    assert found.found > 0.74, "0.8 within the error of the simulation"
    assert chance(0.12, noise, settings, LINE, rng).found > found.found
    assert cheapest(LINE, noise, rng, detect=0.06, power=0.8, most_seeds=4).seeds == 4
    usual = cheapest(LINE, noise, rng)
    assert (usual.seeds, usual.detect) == (FinalsSettings().seeds, pytest.approx(1.25 * noise.total))


def test_a_lead_that_hangs_on_the_problems_is_found_by_no_number_of_seeds() -> None:
    lasting = Noise(0.01, CELL, problem=0.08, freedom=2.0)
    found = chance(0.06, lasting, FinalsSettings(detect=0.06), LINE, np.random.default_rng(1))
    assert found.found < 0.35


@pytest.mark.slow
def test_what_no_seed_can_settle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lead that the problems leave open costs few trainings, and those found are found as before."""
    world = World((0.0, 0.0, 0.04, 0.0), (0.02,) * 4, CELL, problem=0.025)
    rules, found = {"detect": 0.03, "patience": 12.0}, {}
    for reach in (questions.REACH, 0.0):
        monkeypatch.setattr(questions, "REACH", reach)
        races, _ = raced(world, 4, **rules)
        found[reach] = float((races.winner == 2).mean()), float(races.trainings.mean())
    assert found[0.1][1] < 0.8 * found[0.0][1], "measured: 20 trainings, not 30"
    assert found[0.1][0] > found[0.0][0] - 0.05


@pytest.mark.slow
def test_where_seeds_settle_everything_nothing_is_given_up_for_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    world, trainings = World((0.0, 0.0, 0.04, 0.0), (0.03,) * 4, CELL), []
    for reach in (questions.REACH, 0.0):
        monkeypatch.setattr(questions, "REACH", reach)
        trainings.append(float(raced(world, 5, 0.04)[0].trainings.mean()))
    assert trainings[0] == pytest.approx(trainings[1], rel=0.03)
