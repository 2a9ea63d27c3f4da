"""Plain SFT and the published objectives, tuned over the same training knobs as the designs that are searched.

A design with a trust below 1 takes smaller steps, so it may win by its step size alone. A share of the slots therefore
goes to the baselines: each round gives every objective that is left one more setting of the training knobs, then the
better half goes on, never fewer than two, and plain SFT always (successive halving, Jamieson and Talwalkar 2016); the
best one has the first turn of a round and plain SFT the second, since there may be no more slots than that. An
objective starts with the best setting that any trial has had, and then moves a quarter of the range away from its own
best, to the sides that it has not tried; where these are no better, an eighth, and so on.

What comes next follows from the finished trials alone, and is kept with the slot once it is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...spaces import presets
from ...spaces.identity import canonical_id, derive_seed
from ...spaces.ranges import Range
from ...spaces.search_space import Point
from ...spaces.search_space.knobs import Options
from ..store.history import TrialRecord, tuned
from ..store.slots import RIVAL, Slot
from ..study.config import StudyConfig
from ..study.parts import BaselineSettings

FEWEST = 2
"""Objectives that are tuned to the end, besides plain SFT."""
STEPS = (1 / 4, 1 / 8, 1 / 16)
"""How far from its best setting an objective tries another one, as shares of a knob's range."""
NEAR = 0.02
"""Settings less than this share of the range apart are the same."""
Setting = Mapping[str, float]


@dataclass(frozen=True)
class _Objective:
    baseline: BaselineSettings
    name: str
    """Canonical id."""
    best: TrialRecord | None
    """Its best complete trial."""
    tried: Sequence[Setting]
    """Settings of all its trials, whoever drew them."""
    rounds: int
    """Slots it was given here."""

    @property
    def score(self) -> float:
        return -math.inf if self.best is None or self.best.score is None else self.best.score


def next_rival(config: StudyConfig, records: Sequence[TrialRecord], number: int) -> Slot:
    """What trial `number`, a slot for rivals, is to run; an empty slot where there is nothing to tune."""
    objectives = _objectives(config, records)
    if not objectives or not config.space.training:
        return Slot()
    chosen = _turn(objectives)
    training = _next_setting(config, chosen, records, number)
    target = chosen.baseline.target()
    attributes = {
        RIVAL: chosen.baseline.preset,
        "title": chosen.baseline.preset,
        "target": target.model_dump(mode="json"),
        "training": training,
    }
    return Slot(config.space.parameters(Point(target, training)) or {}, attributes)


def _objectives(config: StudyConfig, records: Sequence[TrialRecord]) -> list[_Objective]:
    """The baselines of a study, each gradient once."""
    found: dict[str, _Objective] = {}
    for baseline in config.baseline_settings():
        name = canonical_id(baseline.target())
        own = [each for each in records if each.target is not None and canonical_id(each.target) == name]
        top = tuned(own)
        rounds = sum(each.rival for each in own)
        found.setdefault(name, _Objective(baseline, name, top, [each.training for each in own], rounds))
    return list(found.values())


def _turn(objectives: Sequence[_Objective]) -> _Objective:
    """Whose turn it is, of those that are left in the first round that is not over.

    The best one comes first and plain SFT next: where slots are few, what all are compared with is tuned too.
    """
    sft = canonical_id(presets.get("sft"))
    ranked = sorted(objectives, key=lambda each: -each.score)
    done = 1
    while True:
        left = max(FEWEST, math.ceil(len(ranked) / 2 ** (done - 1)))
        waiting = [each for place, each in enumerate(ranked)
                   if each.rounds < done and (place < left or each.name == sft)]  # fmt: skip
        if waiting:
            return min(waiting, key=lambda each: (each is not ranked[0], each.name != sft))
        done += 1


def _next_setting(
    config: StudyConfig, chosen: _Objective, records: Iterable[TrialRecord], number: int
) -> dict[str, float]:
    """Training knobs that the objective has not been trained with."""
    rules = config.space.training
    best = sorted((each for each in records if each.score is not None and each.repeat is None and each.training),
                  key=lambda each: (-(each.score or 0.0), each.number))  # fmt: skip
    known = [each.training for each in best if each.state == "complete" and rules.keys() <= each.training.keys()]
    proposals = [*known[:1], *_around(rules, chosen.best.training if chosen.best is not None else {}), *known[1:]]
    for setting in proposals:
        if not any(_same(rules, setting, other) for other in chosen.tried):
            return {name: setting[name] for name in rules}
    generator = np.random.default_rng(derive_seed("rival", config.search.seed, number))
    return {name: _value(rule, float(generator.random())) for name, rule in rules.items()}


def _around(rules: Mapping[str, Range | Options | float], best: Setting) -> Iterator[Setting]:
    """Settings that differ from the best in one knob, the far ones first."""
    if not rules.keys() <= best.keys():
        return
    for step in STEPS:
        for name, rule in rules.items():
            here = _share(rule, best[name])
            yield from ({**best, name: _value(rule, min(1.0, max(0.0, here + way)))} for way in (step, -step))


def _share(rule: Range | Options | float, value: float) -> float:
    """Where a value lies in what may be drawn, from 0 to 1."""
    if isinstance(rule, Range):
        low, high, at = (math.log(each) if rule.log else each for each in (rule.low, rule.high, max(value, rule.low)))
        return min(1.0, (at - low) / (high - low))
    if isinstance(rule, Options) and value in rule.options:
        return rule.options.index(value) / max(1, len(rule.options) - 1)
    return 0.0


def _value(rule: Range | Options | float, share: float) -> float:
    if isinstance(rule, Range):
        return rule.at(share)
    return float(rule.options[round(share * (len(rule.options) - 1))]) if isinstance(rule, Options) else rule


def _same(rules: Mapping[str, Range | Options | float], one: Setting, other: Setting) -> bool:
    return all(
        name in other and abs(_share(rule, one[name]) - _share(rule, other[name])) < NEAR
        for name, rule in rules.items()
    )
