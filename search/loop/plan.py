"""From a claimed slot to its trial: baselines as they were published, everything else from the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id, derive_seed
from ...spaces.search_space import Point
from ...trainers.settings import TrainingSettings
from ..store.prior import EarlierDesign, Prior
from ..store.queue import Claim
from ..store.sampling import Chooser
from ..store.slots import Slot, fixed_parameters
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
    first = [*(_slot(config, baseline) for baseline in config.baseline_settings()), *map(_earlier_slot, earlier)]
    return [*first, *_starts(config, (config.search.trials - len(first)) // 2)]


def _starts(config: StudyConfig, most: int) -> list[Slot]:
    """Published points that the families of a named space start from, of those that no baseline is; at most `most`.

    They leave the sampler half of the trials: the rest of a family is found from where its authors stand.
    """
    known = {canonical_id(baseline.target()) for baseline in config.baseline_settings()}
    training = {name: getattr(config.training, name) for name in config.space.training_knobs}
    slots = []
    for name, target in config.space.starts(config.inputs).items():
        parameters = config.space.parameters(Point(target, training))
        if parameters is not None and canonical_id(target) not in known:
            facts = {"title": name, "target": target.model_dump(mode="json"), "training": training}
            slots.append(Slot(parameters, facts))
    return slots[: max(0, most)]


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
        fixed = fixed_parameters(claim.frozen)
        if "target" not in attached:
            self._refuse_unknown(fixed)
            point = self._config.space.suggest(Chooser(claim.trial))
            self._refuse_unused(fixed, claim.trial.params)
            return point.target, dict(point.training)
        if fixed:
            self._config.space.suggest(Chooser(claim.trial))  # records the parameters, for the sampler to learn from
        return TargetSpec.model_validate(attached["target"]), attached["training"]

    def _refuse_unknown(self, fixed: Mapping[str, Any]) -> None:
        """Raise UserError when a point that was enqueued in Optuna itself lies outside of the space."""
        if faults := self._config.space.faults(fixed):
            raise UserError(f"an enqueued point must lie in the searched space, but {'; '.join(faults)}")

    def _refuse_unused(self, fixed: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
        """Raise UserError when such a point names knobs of families that it does not have."""
        if unused := sorted(fixed.keys() - drawn.keys()):
            families = ", ".join(f"{name} = {value}" for name, value in drawn.items() if "." not in name)
            raise UserError(
                f"an enqueued point may only name knobs of its own families, but got {', '.join(unused)} ({families}); "
                "name the families, too"
            )
