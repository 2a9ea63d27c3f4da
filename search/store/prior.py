"""What earlier studies taught, as a study keeps it: ranked points of its own space, and the sampler that uses them.

Scores of two pairs cannot be compared, ranks can: each earlier study's trials are ranked within it, 0 worst, 1 best.
With m own finished trials, the sampler fills a trial from the earlier trials alone with probability

    weight · agreement / (weight + m),    agreement = max(0, Spearman's ρ between own scores and earlier ranks)

and from the study's own trials otherwise. ρ is taken over the targets that both have tried (published baselines, and
the designs that were taken over); with fewer than four of them it counts as 1. So the earlier trials speak first, lose
their weight as own ones come in, and fall silent where the two pairs order the same targets differently. They never
enter the study's own storage: queue, best trial and importance know nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ...evaluation.statistics.stats import rank_correlation
from ...spaces import TargetSpec
from ...spaces.settings import Settings

LEARNT = (TrialState.COMPLETE, TrialState.PRUNED)
"""States that a sampler learns from."""
FEWEST_SHARED = 4
"""Targets tried by both, below which nothing can be said about agreement."""


class EarlierTrial(Settings):
    """A trial of an earlier study as a point of this one's space."""

    parameters: dict[str, float | int | str]
    rank: float
    """Within its study: 0 worst, 1 best."""


class EarlierDesign(Settings):
    """A good design of an earlier study, to be tried right after the baselines."""

    study: str
    title: str
    target: TargetSpec
    training: dict[str, float]
    parameters: dict[str, float | int | str] | None
    """None: the target lies outside this study's space, and is run as it is."""


class Prior(Settings):
    """Settled when a study is created and kept in its storage: every host and every resumption draws the same."""

    weight: float
    """How many own trials the earlier ones count for, all together."""
    trials: tuple[EarlierTrial, ...]
    designs: tuple[EarlierDesign, ...]

    def share(self, study: optuna.Study) -> float:
        """Probability that the next trial is filled from the earlier ones."""
        own = study.get_trials(deepcopy=False, states=LEARNT)
        return self.weight * self.agreement(own) / (self.weight + len(own)) if self.trials and self.weight else 0.0

    def agreement(self, own: list[FrozenTrial]) -> float:
        """Spearman's ρ between own scores and earlier ranks of the targets that both have tried; at least 0."""
        complete = (each for each in own if each.state == TrialState.COMPLETE)
        scores = _best_by_target((each.params, each.values[0]) for each in complete)
        ranks = _best_by_target((each.parameters, each.rank) for each in self.trials)
        shared = [target for target in scores if target in ranks]
        if len(shared) < FEWEST_SHARED:
            return 1.0
        return max(0.0, rank_correlation([(scores[target], ranks[target]) for target in shared]) or 0.0)


class PriorSampler(BaseSampler):
    """Fills one trial with `own` from the study or with `earlier` from `earlier_study`, as `generator` draws."""

    def __init__(
        self,
        own: BaseSampler,
        earlier: BaseSampler,
        prior: Prior,
        earlier_study: Callable[[], optuna.Study],
        generator: np.random.Generator,
    ) -> None:
        self._own, self._earlier, self._prior, self._earlier_study = own, earlier, prior, earlier_study
        self._drawn = generator.random()
        self._source: tuple[BaseSampler, optuna.Study] | None = None

    def _source_of(self, study: optuna.Study) -> tuple[BaseSampler, optuna.Study]:
        if self._source is None:
            from_earlier = self._drawn < self._prior.share(study)
            self._source = (self._earlier, self._earlier_study()) if from_earlier else (self._own, study)
        return self._source

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        sampler, view = self._source_of(study)
        return sampler.infer_relative_search_space(view, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        sampler, view = self._source_of(study)
        return sampler.sample_relative(view, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler, view = self._source_of(study)
        return sampler.sample_independent(view, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._own.after_trial(study, trial, state, values)


def _best_by_target(
    pairs: Iterable[tuple[Mapping[str, Any], float]],
) -> dict[tuple[tuple[str, Any], ...], float]:
    """The best score of each target, whatever its learning rate; trials without parameters are left out."""
    found: dict[tuple[tuple[str, Any], ...], float] = {}
    for parameters, score in pairs:
        if parameters:
            target = _target_part(parameters)
            found[target] = max(score, found.get(target, score))
    return found


def _target_part(parameters: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in parameters.items() if not name.startswith("training.")))
