"""What a slot of the queue is, by what its Optuna trial carries.

A study's own slots are enqueued by it: baselines and other settled designs first, then empty ones that the sampler
fills. Others come by hand: designs that were added, points that somebody enqueued in Optuna itself. Those are on top of
the budget, and no smaller budget takes them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

WITHDRAWN = "withdrawn"
"""User attribute of a slot that a smaller budget took back: failed for Optuna, no part of the study any more."""
ADDED = "added"
"""User attribute of a slot that was put in by hand."""
RERUN_OF = "rerun_of"
"""User attribute of a slot that takes the place of a failed one: the number of that trial."""
RIVAL = "rival"
"""User attribute of a slot that tunes a published objective: True, and its preset once that is chosen."""
SFT = "sft"
"""Preset of plain SFT."""
FIXED = "fixed_params"
"""Optuna's system attribute of an enqueued trial. Others of one that is not drawn yet are a sampler's own notes."""
CANONICAL = "canonical"
"""User attribute of a slot that is wholly drawn: the id of its target and training."""
SETTLED = (
    "title", "baseline", "warm_start", "replicate", "candidate", "longer", "repeat", RIVAL, "target", "training", ADDED,
)  # fmt: skip
"""User attributes that say what a slot is to run; a second try has the same."""


@dataclass(frozen=True)
class Slot:
    """A slot to enqueue: fixed parameters (empty: the sampler fills them) and attributes."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


def slots_of(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that are slots of the study, in the order of the queue.

    Left out are withdrawn ones, failed ones that another slot runs again, and results that never went through the
    queue: somebody has put them into the storage, and only the sampler learns from them.
    """
    known = [trial for trial in trials if not trial.user_attrs.get(WITHDRAWN)]
    replaced = {trial.user_attrs.get(RERUN_OF) for trial in known}
    return [
        trial
        for trial in known
        if trial.number not in replaced and not (trial.state.is_finished() and "attempts" not in trial.user_attrs)
    ]


def fixed_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Parameters that the slot was enqueued with."""
    return dict(trial.system_attrs.get(FIXED, {}))


def by_hand(trial: FrozenTrial) -> bool:
    """Whether the slot is on top of the budget: an added design, or a point enqueued in Optuna itself."""
    facts = trial.user_attrs
    own = any(name in facts for name in ("baseline", "warm_start", "replicate", "repeat", RIVAL, RERUN_OF))
    return bool(facts.get(ADDED)) or (bool(fixed_parameters(trial)) and not own)


def published_as(facts: Mapping[str, Any]) -> str | None:
    """The preset of a trial with these attributes that is a published objective, at its own rate or tuned."""
    preset = facts.get("baseline") or facts.get(RIVAL)
    return preset if isinstance(preset, str) else None


def is_anchor(facts: Mapping[str, Any], anchors: str) -> bool:
    """Whether a trial runs whole whatever it promises, because others are compared with it (`search.anchors`)."""
    baseline = facts.get("baseline")
    return facts.get("repeat") is not None or (baseline is not None and (anchors == "published" or baseline == SFT))


def is_empty(trial: FrozenTrial) -> bool:
    """Whether the slot waits for the sampler, never begun."""
    facts = trial.user_attrs
    return not (fixed_parameters(trial) or "target" in facts or facts.get("attempts"))


def again(trial: FrozenTrial) -> Slot:
    """The slot that runs a failed trial once more, its very design."""
    facts = {name: trial.user_attrs[name] for name in SETTLED if name in trial.user_attrs}
    return Slot(trial.params or fixed_parameters(trial), {**facts, RERUN_OF: trial.number})


def can_run_again(trial: FrozenTrial) -> bool:
    """Whether a trial has failed in a way that may not come again: not by a design that cannot be run."""
    failure = trial.user_attrs.get("failure") or {}
    return trial.state == TrialState.FAIL and failure.get("kind") != "user"
