"""The samplers that `replay.py` compares: a study's own, and others in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from landscape import share_of
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from qtarget.spaces.ranges import Range

EVEN, SPREAD = 5.0, 0.15
"""Trials after the baselines at which half are still drawn around published points; how far around, in ranges."""


@dataclass
class Drawing:
    """Chooser that sees what a trial's sampler would give it, without keeping it."""

    trial: optuna.Trial
    distributions: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return float(self._draw(name, FloatDistribution(low, high, log=log)))

    def integer(self, name: str, low: int, high: int) -> int:
        return int(self._draw(name, IntDistribution(low, high)))

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        return self._draw(name, CategoricalDistribution(list(options)))

    def _draw(self, name: str, distribution: Any) -> Any:
        trial, drawn = self.trial, self.trial.relative_params
        if name in drawn:
            value = drawn[name]
        else:
            stored = trial.study._storage.get_trial(trial._trial_id)
            value = trial.study.sampler.sample_independent(trial.study, stored, name, distribution)
        self.distributions[name], self.parameters[name] = distribution, value
        return value


class NearPublished(BaseSampler):
    """A study's own sampler, and before it has seen much, points around the published baselines of the space.

    The k-th trial after the baselines is drawn so with probability EVEN / (EVEN + k): around the better of two that are
    picked at random, each knob normal with SPREAD of its range.
    """

    def __init__(self, own: BaseSampler, generator: np.random.Generator) -> None:
        self._own, self._generator = own, generator
        self._centre: Mapping[str, Any] | None = None
        self._chosen = False

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, Any]:
        self._choose(study)
        return {} if self._centre else self._own.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        return {} if self._centre else self._own.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: Any, name: str, distribution: Any) -> Any:
        self._choose(study)
        if not self._centre or not isinstance(distribution, FloatDistribution):
            return self._own.sample_independent(study, trial, name, distribution)
        interval = Range(low=distribution.low, high=distribution.high, log=distribution.log)
        share = self._generator.normal(share_of(self._centre[name], interval), SPREAD)
        return interval.at(float(np.clip(share, 0, 1)))

    def _choose(self, study: optuna.Study) -> None:
        if self._chosen:
            return
        self._chosen = True
        seen = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        published = [trial for trial in seen if trial.user_attrs.get("baseline")]
        if self._generator.random() < EVEN / (EVEN + len(seen) - len(published)):
            inside = [trial for trial in published if trial.params]
            pair = self._generator.choice(len(inside), 2)
            self._centre = max((inside[index] for index in pair), key=_reached).params


def _reached(trial: Any) -> tuple[int, float]:
    """A trial at its end is before one at a rung."""
    return (1, trial.values[0]) if trial.values else (0, trial.intermediate_values[max(trial.intermediate_values)])


Sampler = Callable[[BaseSampler, int], BaseSampler]
"""From a study's own sampler and a seed."""


def _cma(own: BaseSampler, seed: int) -> BaseSampler:
    try:
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    except ImportError as error:
        raise SystemExit("the arm `cma` needs the package cmaes: pip install cmaes") from error


SAMPLERS: dict[str, tuple[str, Sampler]] = {
    "random": ("random", lambda own, seed: own),
    "tpe": ("tpe", lambda own, seed: own),
    "gp": ("gp", lambda own, seed: own),
    "cma": ("random", _cma),
    "plain random": ("random", lambda own, seed: own),
    "plain tpe": ("random", lambda own, seed: optuna.samplers.TPESampler(seed=seed)),
    "published": ("tpe", lambda own, seed: NearPublished(own, np.random.default_rng(seed))),
}
"""A study's setting, and what is made of the sampler that it names. A plain one knows no published baselines."""
