"""Optuna's samplers and pruners, as a study's settings name them.

A sampler is made anew for every trial, seeded by (study seed, trial number): a resumed study needs no pickled generator
and draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from ...spaces import SearchSpace
from ...spaces.identity import derive_seed
from ...spaces.search_space.knobs import Value
from .halving import FACTOR
from .prior import Prior, PriorSampler
from .slots import CANONICAL, FIXED

if TYPE_CHECKING:
    from ..study.parts import SearchSettings


class _View(ABC):
    """A storage as a sampler is to see it."""

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        seen = map(self._seen, self._backend.get_all_trials(study_id, deepcopy=deepcopy))
        return [trial for trial in seen if trial is not None and (states is None or trial.state in states)]

    @abstractmethod
    def _seen(self, trial: FrozenTrial) -> FrozenTrial | None:
        """A trial as it is shown; None: not at all."""


class Filled(_View):
    """A storage as the trial that is to be filled sees it: what an attempt drew that died in its midst is drawn anew.

    A generator that is asked for the rest alone would give other values than one that draws them all.
    """

    def __init__(self, backend: BaseStorage, number: int) -> None:
        super().__init__(backend)
        self._number = number

    @classmethod
    def view(cls, backend: BaseStorage, number: int) -> BaseStorage:
        """`number`: the trial to be filled."""
        return cast(BaseStorage, cls(backend, number))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._seen(self._backend.get_trial(trial_id))

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number != self._number or CANONICAL in trial.user_attrs:
            return trial
        seen = copy.copy(trial)
        seen.params, seen.distributions = {}, {}
        seen.system_attrs = {name: value for name, value in trial.system_attrs.items() if name == FIXED}
        return seen


class Learnt(Filled):
    """One where trials pause: what has a rung's score and no end is learnt from, like what was stopped.

    Samplers take no notice of waiting trials, which paused ones are, and take running ones for bad.
    """

    def _seen(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.state.is_finished() or not trial.intermediate_values or trial.number == self._number:
            return super()._seen(trial)
        seen = copy.copy(trial)
        seen.state = TrialState.PRUNED
        return seen


class _Points(_View):
    """Without finished trials that are no points of the space: published objectives outside of it, other seeds."""

    def _seen(self, trial: FrozenTrial) -> FrozenTrial | None:
        return trial if trial.distributions or not trial.state.is_finished() else None


class PointsSampler(BaseSampler):
    """A sampler that models the knobs which all finished trials share, shown only those that have knobs.

    One trial without any would leave nothing to share, and nothing would ever be modelled.
    """

    def __init__(self, own: BaseSampler) -> None:
        self._own = own

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._own.infer_relative_search_space(_points(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._own.sample_relative(_points(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._own.after_trial(study, trial, state, values)


def _points(study: optuna.Study) -> optuna.Study:
    seen = copy.copy(study)
    seen._storage = cast(BaseStorage, _Points(study._storage))
    return seen


class Chooser:
    """Lets a search space draw its knobs from an Optuna trial."""

    def __init__(self, trial: optuna.Trial | optuna.trial.FixedTrial) -> None:
        self._trial = trial

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        return self._trial.suggest_int(name, low, high)

    def choice(self, name: str, options: Sequence[Value]) -> Value:
        return cast(Value, self._trial.suggest_categorical(name, list(options)))


def make_sampler(settings: SearchSettings, number: int, space: SearchSpace, prior: Prior | None = None) -> BaseSampler:
    """The sampler that fills trial `number`; a random one learns nothing, from no study."""
    seed = derive_seed("sampler", settings.seed, number) % 2**32  # Optuna's generators take 32 bits
    own = _sampler(settings, seed)
    if prior is None or settings.sampler == "random":
        return own
    generator = np.random.default_rng(derive_seed("warm start", settings.seed, number))
    earlier = _tpe(0, seed, constant_liar=False)  # nothing runs there, and it would note the drawn point in that study
    return PriorSampler(own, earlier, prior, partial(_earlier_study, prior, space), generator)


def _earlier_study(prior: Prior, space: SearchSpace) -> optuna.Study:
    """The trials of earlier studies as a study in memory, their ranks as values."""
    earlier = optuna.create_study(direction="maximize")
    for each in prior.trials:
        trial = optuna.trial.FixedTrial(dict(each.parameters))
        space.suggest(Chooser(trial))  # for the distributions
        earlier.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=each.rank)
        )
    return earlier


def _sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    tpe = _tpe(settings.startup_trials, seed)
    if settings.sampler == "gp":
        startup = settings.startup_trials
        return PointsSampler(optuna.samplers.GPSampler(seed=seed, independent_sampler=tpe, n_startup_trials=startup))
    return tpe


def _tpe(startup_trials: int, seed: int, constant_liar: bool = True) -> BaseSampler:
    """TPE that models the knobs of one family together.

    Without `group` only the knobs that all trials share would be modelled jointly, in a conditional space almost none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=startup_trials, multivariate=True, group=True, constant_liar=constant_liar, seed=seed
        )


def make_pruner(settings: SearchSettings, steps: int) -> BasePruner:
    """The pruner over rungs, which are reported in optimiser steps."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials)
    if settings.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=min(settings.rung_steps(steps), default=1), reduction_factor=FACTOR
        )
    if settings.pruner == "hyperband":
        first = min(settings.rung_steps(steps), default=1)
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=steps, reduction_factor=2)
    return optuna.pruners.NopPruner()
