"""Warm starts: what earlier studies give, that it helps where pairs agree, and does not hurt where they differ."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from scipy.stats import spearmanr
from scripted_study import scripted
from small_study import small_config

from qtarget.search.loop.plan import first_slots
from qtarget.search.loop.supervisor import run_study
from qtarget.search.loop.warm_start import read_prior
from qtarget.search.store.history import load_history
from qtarget.search.store.prior import EarlierTrial, Prior
from qtarget.search.store.sampling import Chooser, make_sampler
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.study.parts import SearchSettings, WarmStartSettings
from qtarget.spaces import SearchSpace, presets
from qtarget.spaces.errors import UserError
from qtarget.spaces.identity import canonical_id, derive_seed

SPACE = SearchSpace.model_validate(
    {
        "gamma": {"power": {"exponent": [0.0, 2.0], "ceiling": [0.0, 1.0]}},
        "residual": {"geometric": {"teacher": [0.0, 1.0], "reference": 0.0, "temperature": [0.5, 2.0]}},
        "training": {"learning_rate": [1e-4, 1e-2, "log"]},
    }
)
PEAK = {"gamma.power.exponent": 1.5, "gamma.power.ceiling": 0.3, "residual.geometric.teacher": 0.8}
OTHER = {"gamma.power.exponent": 0.3, "gamma.power.ceiling": 0.9, "residual.geometric.teacher": 0.1}
SCALES = {"gamma.power.exponent": 2.0, "gamma.power.ceiling": 1.0, "residual.geometric.teacher": 1.0}


def score(parameters: dict[str, float], peak: dict[str, float]) -> float:
    """1 at the peak, falling with the distance; temperature and learning rate do not matter."""
    return 1.0 - sum(abs(parameters[name] - at) / SCALES[name] for name, at in peak.items())


def search(peak: dict[str, float], trials: int, repetition: int, prior: Prior | None) -> list[float]:
    """Scores of a study on a made-up objective; its first six trials are the same for all, as baselines are."""
    settings = SearchSettings(seed=derive_seed("warm start test", repetition) % 2**31, startup_trials=6)
    study = optuna.create_study(direction="maximize")
    for number in range(6):
        study.enqueue_trial(dict(SPACE.parameters(SPACE.sample(derive_seed("baseline", number))) or {}))
    for number in range(trials):
        study.sampler = make_sampler(settings, number, SPACE, prior)
        trial = study.ask()
        SPACE.suggest(Chooser(trial))
        study.tell(trial, score(trial.params, peak))
    return [float(trial.value or 0.0) for trial in study.trials]


def trials_until(scores: list[float], goal: float) -> int:
    """How many trials it took to reach `goal`; one more than there were when it was not reached."""
    return next((number + 1 for number, value in enumerate(scores) if value >= goal), len(scores) + 1)


def prior_on(peak: dict[str, float], repetition: int, baselines: int = 6) -> Prior:
    """30 random trials and the baselines of `search`, ranked by the objective with that peak."""
    seeds = [derive_seed("baseline", number) for number in range(baselines)]
    seeds += [derive_seed("earlier", repetition, number) for number in range(30)]
    points = [dict(SPACE.parameters(SPACE.sample(seed)) or {}) for seed in seeds]
    ordered = sorted(points, key=lambda point: score(point, peak))
    last = len(points) - 1
    trials = tuple(EarlierTrial(parameters=point, rank=index / last) for index, point in enumerate(ordered))
    return Prior(weight=5.0, trials=trials, designs=())


@pytest.mark.slow
def test_an_earlier_study_helps_where_it_agrees_and_costs_little_where_it_misleads() -> None:
    repetitions = range(16)
    runs = {
        "cold": [search(PEAK, 20, repetition, None) for repetition in repetitions],
        "agrees": [search(PEAK, 20, repetition, prior_on(PEAK, repetition)) for repetition in repetitions],
        "misleads": [search(PEAK, 20, repetition, prior_on(OTHER, repetition)) for repetition in repetitions],
    }
    best = {name: statistics.mean(max(scores) for scores in found) for name, found in runs.items()}
    needed = {name: statistics.mean(trials_until(scores, 0.75) for scores in found) for name, found in runs.items()}
    print(best, needed)
    assert best["agrees"] > best["cold"] + 0.02 and needed["agrees"] < needed["cold"] - 1
    assert best["misleads"] > best["cold"] - 0.02 and needed["misleads"] < needed["cold"] + 1


@pytest.mark.slow
def test_without_a_shared_target_a_misleading_study_loses_its_weight() -> None:
    """Nothing tells that it misleads: it is believed for as long as its weight lasts, and the search goes on."""
    repetitions = range(16)
    cold = [max(search(PEAK, 24, repetition, None)) for repetition in repetitions]
    misled = []
    for repetition in repetitions:
        misled.append(max(search(PEAK, 24, repetition, prior_on(OTHER, repetition, baselines=0))))
    assert statistics.mean(misled) > statistics.mean(cold) - 0.06


def own_trials(points: list[dict[str, float]], scores: list[float]) -> optuna.Study:
    """A study in which these points have these scores."""
    study = optuna.create_study(direction="maximize")
    for point in points:
        study.enqueue_trial(point)
    for value in scores:
        trial = study.ask()
        SPACE.suggest(Chooser(trial))
        study.tell(trial, value)
    return study


def test_the_share_of_earlier_trials_falls_with_own_ones_and_with_disagreement() -> None:
    points = [dict(SPACE.parameters(SPACE.sample(seed)) or {}) for seed in range(8)]
    trials = tuple(EarlierTrial(parameters=point, rank=rank / 7) for rank, point in enumerate(points))
    prior = Prior(weight=5.0, trials=trials, designs=())
    rising = [0.1 * number for number in range(8)]
    assert prior.share(own_trials([], [])) == 1.0
    assert prior.share(own_trials(points[:3], rising[:3])) == 5 / 8, "three shared targets say nothing yet"
    assert prior.share(own_trials(points, rising)) == pytest.approx(5 / 13)
    assert prior.share(own_trials(points, rising[::-1])) == 0.0
    assert prior.share(own_trials(points, [0.5] * 8)) == 0.0, "equal scores agree with nothing"
    mixed = [0.3, 0.1, 0.2, 0.0, 0.6, 0.4, 0.7, 0.5]
    assert prior.share(own_trials(points, mixed)) == pytest.approx(5 / 13 * spearmanr(range(8), mixed).statistic)
    elsewhere = [{**point, "training.learning_rate": 2e-4} for point in points]
    assert prior.share(own_trials(elsewhere, rising[::-1])) == 0.0, "another learning rate is the same target"
    assert Prior(weight=0.0, trials=trials, designs=()).share(own_trials([], [])) == 0.0
    assert Prior(weight=5.0, trials=(), designs=()).share(own_trials([], [])) == 0.0


def test_the_same_trial_is_drawn_on_every_host() -> None:
    prior = prior_on(PEAK, 0)
    settings = SearchSettings(seed=3, startup_trials=2)
    drawn = []
    for _ in range(2):
        study = own_trials([], [])
        found = []
        for number in range(6):
            study.sampler = make_sampler(settings, number, SPACE, Prior.model_validate_json(prior.model_dump_json()))
            trial = study.ask()
            SPACE.suggest(Chooser(trial))
            study.tell(trial, score(trial.params, PEAK))
            found.append(dict(trial.params))
        drawn.append(found)
    assert drawn[0] == drawn[1]
    random = make_sampler(SearchSettings(sampler="random"), 0, SPACE, prior)
    assert isinstance(random, optuna.samplers.RandomSampler), "a random search learns from nothing"


@pytest.fixture
def finished(scripted_study: Callable[..., StudyConfig]) -> StudyConfig:
    """An earlier study of eight trials with a teacher; score = the learning rate, but for two that are told."""
    earlier = scripted_study(
        {"scores": {"0": 0.001, "3": 0.9}, "4": ["diverged"]},
        study="earlier",
        search={"trials": 8, "startup_trials": 4, "pruner": "none"},
        tracking={"uri": "none"},
    )
    assert run_study(earlier, launch=scripted).state == "finished"
    return earlier


@pytest.mark.slow
def test_best_designs_come_after_the_baselines_and_the_prior_is_kept(
    finished: StudyConfig, scripted_study: Callable[..., StudyConfig]
) -> None:
    changes = {"study": "new", "warm_start": ["runs/earlier"], "tracking": {"uri": "none"}}
    new = scripted_study({}, search={"trials": 7, "startup_trials": 4, "pruner": "none"}, **changes)
    assert run_study(new, launch=scripted).state == "finished"
    before, records = load_history(finished), load_history(new)
    assert [record.baseline for record in records[:3]] == ["sft", "dft", None]
    known = {canonical_id(presets.get(name)) for name in ("sft", "dft")}
    ranked = sorted(
        (record for record in before if record.state == "complete" and record.target is not None),
        key=lambda record: -(record.score or 0.0),
    )
    expected = [record for record in ranked if canonical_id(record.target) not in known][:3]  # type: ignore[arg-type]
    assert expected[0].number == 3
    taken = records[2:5]
    assert [record.target for record in taken] == [record.target for record in expected]
    assert [record.training for record in taken] == [record.training for record in expected]
    assert [record.parameters for record in taken] == [record.parameters for record in expected], "points of this space"
    shutil.rmtree(finished.study_folder)
    assert run_study(new, launch=scripted, trials=8).state == "finished", "what was read is kept"


@pytest.mark.slow
def test_a_design_outside_the_new_space_or_without_its_teacher(
    finished: StudyConfig, scripted_study: Callable[..., StudyConfig]
) -> None:
    narrow = {"gamma": {"power": {"exponent": [1.0, 1.5]}}, "residual": {"geometric": {"teacher": 1.0}}}
    config = scripted_study({}, study="narrow", warm_start={"studies": ["runs/earlier"], "designs": 2}, space=narrow)
    prior = read_prior(config)
    assert len(prior.designs) == 2 and prior.designs[0].parameters is None
    slots = first_slots(config, prior)
    assert slots[-2].parameters == {} and slots[-2].attributes["warm_start"] == "earlier"
    alone = scripted_study({}, study="alone", teacher=None, warm_start=["runs/earlier"])
    assert all("teacher" not in design.target.needs for design in read_prior(alone).designs)


@pytest.mark.slow
def test_trials_are_ranked_within_their_study(
    finished: StudyConfig, scripted_study: Callable[..., StudyConfig]
) -> None:
    config = scripted_study({}, study="new", warm_start=["runs/earlier"])
    prior = read_prior(config)
    ranks = {json.dumps(each.parameters, sort_keys=True): each.rank for each in prior.trials}
    for record in load_history(finished):
        if record.parameters:
            rank = ranks[json.dumps(dict(record.parameters), sort_keys=True)]
            assert (rank == 1.0) == (record.number == 3) and (rank == 0.0) == (record.state == "infeasible")
    twice = config.model_copy(update={"warm_start": WarmStartSettings(studies=("runs/earlier", "runs/earlier"))})
    assert len(read_prior(twice).trials) == 2 * len(prior.trials)
    assert read_prior(twice).designs == prior.designs, "equal designs once"


@pytest.mark.slow
def test_what_cannot_be_started_from_is_refused(
    finished: StudyConfig, scripted_study: Callable[..., StudyConfig], tmp_path: Path
) -> None:
    def refused(**warm_start: object) -> str:
        config = scripted_study({}, study="new", warm_start=warm_start)
        with pytest.raises(UserError) as error:
            run_study(config, launch=scripted)
        return str(error.value)

    assert "must hold study.json" in refused(studies=["runs"])
    assert "there is none at" in refused(studies=["gone.yaml"])
    assert "another study, but got 'runs/new'" in refused(studies=["runs/new"])
    empty = scripted_study({"0": ["diverged"]}, study="empty", search={"trials": 1}, tracking={"uri": "none"})
    run_study(empty, launch=scripted)
    assert "must have a complete trial, but study 'empty' has none" in refused(studies=["runs/empty"])
    with pytest.raises(UserError, match=r"`warm_start.studeis` must be a known key") as unknown:
        parse_study(small_config(warm_start={"studies": ["x"], "studeis": ["y"]}))
    assert unknown.value.field == "warm_start.studeis"


@pytest.mark.slow
def test_a_study_is_not_resumed_with_another_warm_start(
    finished: StudyConfig, scripted_study: Callable[..., StudyConfig]
) -> None:
    config = scripted_study({}, study="new", tracking={"uri": "none"})
    run_study(config, launch=scripted)
    changed = config.model_copy(update={"warm_start": WarmStartSettings(studies=("runs/earlier",))})
    with pytest.raises(UserError, match="must be resumed with the configuration it was created with"):
        run_study(changed, launch=scripted)
