"""Rungs of a study, for people: what of the budget in steps is spent, who waits where, and how a rung ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..store.halving import Halving
from ..store.history import TrialRecord
from ..study.config import StudyConfig

FEWEST_PAIRS = 5
"""Trials with a score at a rung and at the end, below which nothing is said of how the two agree."""


def steps(config: StudyConfig, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """The budget of a study whose trials pause, in optimiser steps, as JSON data; None where they do not."""
    halving = Halving.of(config)
    if halving is None:
        return None
    waiting = [max(record.rungs, default=0) for record in records if record.state == "paused"]
    spent = sum(halving.price(vars(record), record.by_hand) for record in records)
    return {
        "budget": halving.budget,
        "spent": spent,
        "more": halving.has_more(halving.budget - spent, waiting),
        "whole_trial": halving.whole,
        "trials": halving.trials,
        "begun": sum(record.attempts > 0 for record in records),
        "paused": {step: waiting.count(step) for step in sorted(set(waiting))},
    }


def rungs(config: StudyConfig, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Each rung as JSON data: how it is scored, how many were, and how their scores rank beside those of the end."""
    found = []
    for rung in config.search.rungs_of(config.training.steps, config.evaluation.problems):
        own = [record for record in records if rung.step in record.rungs and record.same_as is None]
        ends = [(record.rungs[rung.step], record.score) for record in own if record.state == "complete"]
        pairs = [(there, end) for there, end in ends if end is not None]
        known = {"scored": len(own), "reached_the_end": len(pairs), "agreement": agreement(pairs)}
        found.append({**rung.model_dump(), **known})
    return found


def agreement(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's ρ between scores at a rung and at the end, (rung, end) of each trial; None where too few, or equal."""
    from ...evaluation.statistics.stats import rank_correlation  # scipy: not for every look at a study

    return rank_correlation(pairs) if len(pairs) >= FEWEST_PAIRS else None


def budget_sentence(found: Mapping[str, Any]) -> str:
    """What `steps` gives, in words."""
    waiting = ", ".join(f"{count} at step {step}" for step, count in found["paused"].items())
    return (
        f"Budget: {found['spent']} of {found['budget']} steps, which {found['trials']} whole trials would take; "
        f"{found['begun']} are begun{f', paused are {waiting}' if waiting else ''}."
    )


def agreements(config: StudyConfig, records: Sequence[TrialRecord]) -> list[str]:
    """How each rung ranks beside the end, a sentence each, where enough trials tell."""
    return [_agreement(each) for each in rungs(config, records) if each["agreement"] is not None]


def _agreement(found: Mapping[str, Any]) -> str:
    return (
        f"Scores at step {found['step']} rank as those at the end with Spearman's ρ = {found['agreement']:.2f} "
        f"(of {found['reached_the_end']} trials with both)."
    )
