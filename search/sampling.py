"""Optuna's samplers and pruners, as a study's settings name them.

A sampler is made anew for every trial, seeded by (study seed, trial number): a resumed study needs no pickled generator
and draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from ..spaces.identity import derive_seed

if TYPE_CHECKING:
    from .config import SearchSettings


class Chooser:
    """Lets a search space draw its knobs from an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        return self._trial.suggest_int(name, low, high)

    def choice(self, name: str, options: Sequence[str]) -> str:
        return str(self._trial.suggest_categorical(name, list(options)))


def make_sampler(settings: SearchSettings, number: int) -> BaseSampler:
    """The sampler that fills trial `number`."""
    seed = derive_seed("sampler", settings.seed, number) % 2**32  # Optuna's generators take 32 bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _sampler(settings, seed)


def _sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # group=True: the knobs of one family are modelled together. Without it only those that all trials share would be
    # modelled jointly, and in a conditional space those are almost none.
    tpe = optuna.samplers.TPESampler(n_startup_trials=settings.startup_trials, multivariate=True, group=True, seed=seed)
    if settings.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, independent_sampler=tpe, n_startup_trials=settings.startup_trials)
    return tpe


def make_pruner(settings: SearchSettings, steps: int) -> BasePruner:
    """The pruner over rungs, which are reported in optimiser steps."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials)
    if settings.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=min(settings.rung_steps(steps), default=1), reduction_factor=2
        )
    if settings.pruner == "hyperband":
        first = min(settings.rung_steps(steps), default=1)
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=steps, reduction_factor=2)
    return optuna.pruners.NopPruner()
