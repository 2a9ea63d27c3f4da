"""Samplers as a study makes them: what they are shown of its trials."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import GPSampler

from qtarget.search.store.sampling import Chooser, make_sampler
from qtarget.search.study.parts import SearchSettings
from qtarget.spaces import SearchSpace

SPACE = SearchSpace(training={"learning_rate": 1e-3})


def _drawn(monkeypatch: pytest.MonkeyPatch, outside: int) -> tuple[int, list[dict[str, float]]]:
    """How often a Gaussian process was fitted, and what was drawn, in a study with trials outside of its space."""
    fitted = 0
    sample = GPSampler._sample_relative_impl

    def counted(self: GPSampler, *given: object) -> object:
        nonlocal fitted
        fitted += 1
        return sample(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(GPSampler, "_sample_relative_impl", counted)
    settings, study = SearchSettings(sampler="gp", startup_trials=3), optuna.create_study(direction="maximize")
    for score in range(outside):
        study.tell(study.ask(), 0.1 * score)
    points = []
    for number in range(outside, outside + 5):
        study.sampler = make_sampler(settings, number, SPACE)
        trial = study.ask()
        SPACE.suggest(Chooser(trial))
        study.tell(trial, trial.params["gamma.power.exponent"])
        points.append(trial.params)
    return fitted, points


def test_a_gaussian_process_is_fitted_though_baselines_lie_outside_of_the_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        fitted, points = _drawn(patched, outside=2)
    assert fitted == 2, "after three points of the space"
    assert [sorted(each) for each in points] == [sorted(points[0])] * 5
    assert len({each["gamma.power.exponent"] for each in points}) == 5
