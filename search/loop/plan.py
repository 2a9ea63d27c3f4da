"""From a claimed slot to its trial: baselines as they were published, everything else from the sampler.

A search's queue holds, in this order: the baselines, the best designs of earlier studies, and then slots that the
sampler fills. Among these stand, at places that depend on nothing but their number, slots that tune the baselines
(`rivals.py`) and repetitions of plain SFT with other seeds, which say how far runs of one design differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id, derive_seed
from ...spaces.search_space import Point
from ..store.prior import EarlierDesign, Prior
from ..store.queue import Claim
from ..store.sampling import Chooser
from ..store.slots import CANONICAL, RIVAL, Slot, fixed_parameters
from ..study.config import StudyConfig
from ..study.parts import BaselineSettings
from ..study.trial import TrialSpec
from .budget import is_confirmed

REPEAT_EVERY = 5
"""Slots after the baselines of which one repeats plain SFT, as long as there are repetitions left."""


@dataclass(frozen=True)
class Planned:
    """A trial ready to run, and the facts to keep with it."""

    spec: TrialSpec
    title: str
    attributes: dict[str, Any]


def first_slots(config: StudyConfig, prior: Prior | None = None) -> list[Slot]:
    """The slots of a search in the order of its queue; a confirmation asks for its own as it goes.

    A baseline that is a point of the searched space is enqueued as its parameters: the sampler learns from it.
    """
    earlier = prior.designs if prior is not None else ()
    settled = [*(_slot(config, baseline) for baseline in config.baseline_settings()), *map(_earlier_slot, earlier)]
    settled += _starts(config, (config.search.trials - len(settled)) // 2)
    repeats = _repeats(config)
    rest = [_open_slot(config, repeats, index) for index in range(config.search.trials - len(settled))]
    return [*settled, *rest]


def later_slot(config: StudyConfig, first: Sequence[Slot], count: int) -> Slot:
    """The slot after `count` others, of which `first` are planned: a budget in steps may have room for more."""
    return first[count] if count < len(first) else _open_slot(config, (), count)


def _starts(config: StudyConfig, most: int) -> list[Slot]:
    """Published points that the families of a named space start from, of those that no baseline is; at most `most`.

    They leave the sampler half of the trials: the rest of a family is found from where its authors stand.
    """
    known = {canonical_id(baseline.target()) for baseline in config.baseline_settings()}
    training = {name: config.training.knob(name) for name in config.space.training_knobs}
    slots = []
    for name, target in config.space.starts(config.inputs).items():
        parameters = config.space.parameters(Point(target, training))
        if parameters is not None and canonical_id(target) not in known:
            facts = {"title": name, "target": target.model_dump(mode="json"), "training": training}
            slots.append(Slot(parameters, facts))
    return slots[: max(0, most)]


def _repeats(config: StudyConfig) -> list[Slot]:
    """Plain SFT as its baseline has it, with other seeds; none where nothing is confirmed, or SFT is no baseline."""
    sft = next((each for each in config.baseline_settings() if each.preset == "sft"), None)
    if sft is None or not is_confirmed(config):
        return []
    first = _slot(config, sft).attributes
    facts = {"target": first["target"], "training": first["training"]}
    return [
        Slot(attributes={**facts, "title": f"sft, seed {each + 1}", "repeat": each})
        for each in range(1, config.search.repeats + 1)
    ]


def _open_slot(config: StudyConfig, repeats: Sequence[Slot], index: int) -> Slot:
    """Slot `index` of those after the settled ones."""
    place, share = divmod(index, REPEAT_EVERY), config.search.rivals
    if place[1] == REPEAT_EVERY - 1 and place[0] < len(repeats):
        return repeats[place[0]]
    is_rivals = math.floor((index + 1) * share + 1e-9) > math.floor(index * share + 1e-9)
    return Slot(attributes={RIVAL: True}) if is_rivals else Slot()


def _slot(config: StudyConfig, baseline: BaselineSettings) -> Slot:
    target = baseline.target()
    training = {name: config.training.knob(name) for name in config.space.training_knobs} | baseline.training
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


class Planner:
    """Makes the trial of a claim; everything but target and training knobs is the same for all trials of a study."""

    def __init__(self, config: StudyConfig, fingerprints: dict[str, str]) -> None:
        self._config, self._fingerprints = config, fingerprints
        self._rungs = config.search.rungs_of(config.training.steps, config.evaluation.problems)

    def plan(self, claim: Claim) -> Planned:
        """The trial of a claim: as attached to it, else as the sampler fills it."""
        target, training = self._design(claim)
        config = self._config
        spec = TrialSpec(
            target=target,
            training=config.training.with_knobs(training),
            model=config.model,
            teacher=config.teacher if "teacher" in target.needs else None,
            data=config.data,
            evaluation=config.evaluation,
            fingerprints=self._fingerprints,
            **self._role(claim.attributes),
        )
        title = str(claim.attributes.get("title") or claim.attributes.get("baseline") or target.title())
        facts = {
            "title": title,
            "target": target.model_dump(mode="json"),
            "training": training,
            "spec_id": spec.id,
            CANONICAL: spec.canonical_id,
        }
        return Planned(spec, title, facts)

    def _role(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A trial of the search shares its seed with all others; repetitions and replicates have fresh ones."""
        seed = self._config.search.seed
        if "replicate" in facts:
            return {"seed": derive_seed("confirmation", seed, facts["replicate"]), "split": "report"}
        if "repeat" in facts:
            return {"seed": derive_seed("repeat", seed, facts["repeat"])}
        return {"seed": derive_seed("study", seed), "rungs": self._rungs}

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
