"""From a claimed slot to its trial: baselines as they were published, everything else from the sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...spaces import TargetSpec
from ...spaces.identity import derive_seed
from ...spaces.search_space import Point
from ...trainers.settings import TrainingSettings
from ..store.prior import EarlierDesign, Prior
from ..store.queue import Claim, Slot
from ..store.sampling import Chooser
from ..study.config import BaselineSettings, Candidate, StudyConfig
from ..study.trial import Rung, TrialSpec


@dataclass(frozen=True)
class Planned:
    """A trial ready to run, and the facts to keep with it."""

    spec: TrialSpec
    title: str
    attributes: dict[str, Any]


def first_slots(config: StudyConfig, prior: Prior | None = None) -> list[Slot]:
    """The baselines and the best designs of earlier studies, or every candidate with every fresh seed.

    A baseline that is a point of the searched space is enqueued as its parameters: the sampler learns from it.
    """
    if config.candidates:
        seeds = range(config.confirmation.seeds)
        return [_replicate(candidate, seed) for seed in seeds for candidate in config.candidates]
    earlier = prior.designs if prior is not None else ()
    return [*(_slot(config, baseline) for baseline in config.baseline_settings()), *map(_earlier_slot, earlier)]


def _slot(config: StudyConfig, baseline: BaselineSettings) -> Slot:
    target = baseline.target()
    training = {name: getattr(config.training, name) for name in config.space.training_knobs} | baseline.training
    parameters = config.space.parameters(Point(target, training))
    attributes = {
        "baseline": baseline.preset,
        "target": target.model_dump(mode="json"),
        "training": training,
    }
    return Slot(parameters or {}, attributes)


def _earlier_slot(design: EarlierDesign) -> Slot:
    attributes = {
        "title": design.title,
        "warm_start": design.study,
        "target": design.target.model_dump(mode="json"),
        "training": design.training,
    }
    return Slot(design.parameters or {}, attributes)


def _replicate(candidate: Candidate, seed: int) -> Slot:
    facts = {"title": candidate.title, "target": candidate.target.model_dump(mode="json"), "replicate": seed}
    return Slot(attributes={**facts, "training": dict(candidate.training)})


class Planner:
    """Makes the trial of a claim; everything but target and training knobs is the same for all trials of a study."""

    def __init__(self, config: StudyConfig, fingerprints: dict[str, str]) -> None:
        self._config, self._fingerprints = config, fingerprints
        steps = config.training.steps
        problems = config.search.rung_problem_count(config.evaluation.problems)
        self._rungs = tuple(Rung(step=step, problems=problems) for step in config.search.rung_steps(steps))

    def plan(self, claim: Claim) -> Planned:
        """The trial of a claim: as attached to it, else as the sampler fills it."""
        target, training = self._design(claim)
        config = self._config
        spec = TrialSpec(
            target=target,
            training=TrainingSettings.model_validate({**config.training.model_dump(), **training}),
            model=config.model,
            teacher=config.teacher if "teacher" in target.needs else None,
            data=config.data,
            evaluation=config.evaluation,
            fingerprints=self._fingerprints,
            **self._role(claim.attributes.get("replicate")),
        )
        title = str(claim.attributes.get("title") or claim.attributes.get("baseline") or target.title())
        facts = {
            "title": title,
            "target": target.model_dump(mode="json"),
            "training": training,
            "spec_id": spec.id,
            "canonical": spec.canonical_id,
        }
        return Planned(spec, title, facts)

    def _role(self, replicate: int | None) -> dict[str, Any]:
        """A trial of the search shares its seed with all others; a replicate of a confirmation has a fresh one."""
        seed = self._config.search.seed
        if replicate is None:
            return {"seed": derive_seed("study", seed), "rungs": self._rungs}
        return {"seed": derive_seed("confirmation", seed, replicate), "split": "report"}

    def _design(self, claim: Claim) -> tuple[TargetSpec, dict[str, float]]:
        attached = claim.attributes
        if "target" not in attached:
            point = self._config.space.suggest(Chooser(claim.trial))
            return point.target, dict(point.training)
        if fixed_parameters(claim):
            self._config.space.suggest(Chooser(claim.trial))  # records the parameters, for the sampler to learn from
        return TargetSpec.model_validate(attached["target"]), attached["training"]


def fixed_parameters(claim: Claim) -> dict[str, Any]:
    """Parameters that the slot was enqueued with."""
    return dict(claim.trial.study._storage.get_trial(claim.trial._trial_id).system_attrs.get("fixed_params", {}))
