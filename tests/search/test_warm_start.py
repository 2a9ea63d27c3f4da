"""Warm starts: what is taken from earlier studies, that it helps where pairs agree, and does not hurt where they differ."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml
from scripted_study import scripted
from small_study import small_config

from qtarget.search.config import SearchSettings, StudyConfig
from qtarget.search.config_file import load_study, parse_study
from qtarget.search.history import load_history
from qtarget.search.prior import EarlierTrial, Prior
from qtarget.search.sampling import Chooser, make_sampler
from qtarget.search.supervisor import run_study
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


def search(peak: dict[str, float], trials: int, repetition: int, prior: Prior | None) -> float:
    """The best score of a study on a made-up objective; its first six trials are the same for all, as baselines are."""
    settings = SearchSettings(seed=derive_seed("warm start test", repetition) % 2**31, startup_trials=6)
    study = optuna.create_study(direction="maximize")
    for number in range(6):
        study.enqueue_trial(dict(SPACE.parameters(SPACE.sample(derive_seed("baseline", number))) or {}))
    for number in range(trials):
        study.sampler = make_sampler(settings, number, SPACE, prior)
        trial = study.ask()
        SPACE.suggest(Chooser(trial))
        study.tell(trial, score(trial.params, peak))
    return study.best_value


def prior_on(peak: dict[str, float], repetition: int) -> Prior:
    """30 random trials and the six baselines of `search`, ranked by the objective with that peak."""
    seeds = [derive_seed("baseline", number) for number in range(6)]
    seeds += [derive_seed("earlier", repetition, number) for number in range(30)]
    points = [dict(SPACE.parameters(SPACE.sample(seed)) or {}) for seed in seeds]
    ordered = sorted(points, key=lambda point: score(point, peak))
    trials = tuple(EarlierTrial(parameters=point, rank=index / 35) for index, point in enumerate(ordered))
    return Prior(weight=5.0, trials=trials, designs=())


def test_an_earlier_study_helps_where_it_agrees_and_costs_little_where_it_misleads() -> None:
    repetitions = range(12)
    cold = [search(PEAK, 16, repetition, None) for repetition in repetitions]
    helped = [search(PEAK, 16, repetition, prior_on(PEAK, repetition)) for repetition in repetitions]
    misled = [search(PEAK, 16, repetition, prior_on(OTHER, repetition)) for repetition in repetitions]
    print(statistics.mean(cold), statistics.mean(helped), statistics.mean(misled))
    assert statistics.mean(helped) > statistics.mean(cold) + 0.03
    assert statistics.mean(misled) > statistics.mean(cold) - 0.03
