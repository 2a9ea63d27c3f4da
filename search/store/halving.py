"""Asynchronous successive halving over the queue: trials that pause at rungs, and which of them go on.

A trial trains to its first rung, is scored, and waits there with its checkpoint, holding no engine. Whoever has an
engine free gives it to the best trial that waits among the best `1 / FACTOR` of all that were scored at its rung, the
highest rung first; where there is none, to a new one (ASHA, Li et al. 2020, algorithm 2). Equals go on together. What
others are compared with stays whole: plain SFT, its other seeds and designs put in by hand pause nowhere, and count at
the rungs they pass. Published objectives are promoted among themselves, and so is plain SFT where it is tuned: of each
kind there is one to compare with, however far designs are ahead.

The budget is in optimiser steps: as many as the study's number of trials would take, each trained to its end. A step
counts when it is granted, under the study's lock, so that any number of workers spends no more than there is. A new
trial begins only while a whole one is left of the budget; what is left after that goes to the best that wait, whatever
their place, until no way to a next rung fits, unless only part of the queue is run now. A larger budget goes on with
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ..study.config import StudyConfig
from ..study.trial import Rung
from .slots import SFT, by_hand, is_anchor, published_as

FACTOR = 3
"""One of so many goes on from a rung; the usual one (η of the paper)."""
GRANTED = "granted"
"""User attribute: the optimiser step to which the trial may train; a rung, or its end."""
PAUSED = "paused"
"""User attribute of a waiting trial: the rung, in optimiser steps, at which it waits to be promoted."""


@dataclass(frozen=True)
class Grant:
    """What a free engine is to do next."""

    trial: FrozenTrial | None
    """None: a new one."""
    until: int
    """Optimiser steps."""


@dataclass(frozen=True)
class Halving:
    """The rungs of a study and its budget."""

    rungs: tuple[Rung, ...]
    steps: int
    """Of a trial trained to its end."""
    trials: int
    """How many of these the budget is worth."""
    goes_further: bool = False
    """Whether a larger budget follows, so that what is left of this one is kept for it."""
    anchors: str = SFT
    """As `search.anchors` has it."""

    @classmethod
    def of(cls, config: StudyConfig) -> Halving | None:
        """None where trials do not pause."""
        search, steps = config.search, config.training.steps
        if not config.pauses or not search.rung_steps(steps):
            return None
        rungs = search.rungs_of(steps, config.evaluation.problems)
        return cls(rungs, steps, search.slots, search.goes_further, search.anchors)

    @property
    def whole(self) -> int:
        """Optimiser steps of a trial trained to its end, those for its scores on the way included."""
        return self.cost(0, self.steps)

    @property
    def budget(self) -> int:
        """Optimiser steps."""
        return self.trials * self.whole

    def cost(self, start: int, end: int) -> int:
        """Optimiser steps from one rung to another, those for the scores on the way included."""
        return end - start + sum(rung.decay_steps for rung in self.rungs if start < rung.step <= end)

    def after(self, step: int) -> int:
        """The next rung, or the end."""
        return next((rung.step for rung in self.rungs if rung.step > step), self.steps)

    def is_whole(self, trial: FrozenTrial) -> bool:
        """Whether a trial pauses nowhere: others are compared with it, or somebody has asked for it."""
        return by_hand(trial) or is_anchor(trial.user_attrs, self.anchors)

    def passed(self, trial: FrozenTrial) -> list[int]:
        """Rungs that a trial need not be scored at again: it was allowed to go on from them."""
        granted = trial.user_attrs.get(GRANTED) or 0
        return [] if self.is_whole(trial) else [rung.step for rung in self.rungs if rung.step < granted]

    def spent(self, slots: Iterable[FrozenTrial]) -> int:
        """Optimiser steps that were granted; designs put in by hand come on top of the budget."""
        return sum(self.price(trial.user_attrs, by_hand(trial)) for trial in slots)

    def price(self, facts: Mapping[str, Any], on_top: bool) -> int:
        """Of a trial with the attributes `facts`, in optimiser steps, as far as it was granted."""
        granted = facts.get(GRANTED)
        if on_top or (granted is None and not facts.get("attempts")):
            return 0
        if facts.get("repeat") is not None or granted is None:  # a seed without rungs, or from under another pruner
            return self.steps
        return self.cost(0, int(granted))

    def next(self, slots: Sequence[FrozenTrial], ready: Sequence[FrozenTrial]) -> Grant | None:
        """What comes next; `ready`: those of the `slots` that wait for an engine, the known ones first."""
        left = self.budget - self.spent(slots)
        for trial in ready:
            if (granted := trial.user_attrs.get(GRANTED)) is not None:  # stopped on its way
                return Grant(trial, int(granted))
            if self.is_whole(trial) or trial.user_attrs.get("attempts"):  # or begun before trials paused
                return Grant(trial, self.steps)
        promoted = self._promoted(slots, left)
        if promoted is not None:
            return promoted
        if left >= self.whole:
            return Grant(next(iter(ready), None), self.rungs[0].step)
        return None if self.goes_further else next(self._affordable(self._ranked_above(slots), left), None)

    def has_more(self, left: int, waiting: Iterable[int]) -> bool:
        """Whether `left` steps are enough for anything; `waiting`: the rungs at which trials are paused."""
        fits = any(self.cost(step, self.after(step)) <= left for step in waiting)
        return left >= self.whole or (fits and not self.goes_further)

    def goes_on(self, trial: FrozenTrial, slots: Sequence[FrozenTrial]) -> int | None:
        """To which step a trial that was scored at its rung may train without a pause; None: it pauses there."""
        granted, step = int(trial.user_attrs.get(GRANTED, self.steps)), max(trial.intermediate_values, default=0)
        if granted > step:
            return granted
        end, left = self.after(step), self.budget - self.spent(slots)
        best = self._best(slots, step)
        return end if trial.number in best and self.cost(step, end) <= left else None

    def _promoted(self, slots: Sequence[FrozenTrial], left: int) -> Grant | None:
        for rung in self.rungs[::-1]:
            best = self._best(slots, rung.step)
            waiting = [trial for trial in self._paused(slots, rung.step) if trial.number in best]
            if (found := next(self._affordable(waiting, left), None)) is not None:
                return found
        return None

    def _ranked_above(self, slots: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """All that wait, the highest rung first."""
        return [trial for rung in self.rungs[::-1] for trial in self._paused(slots, rung.step)]

    def _affordable(self, waiting: Iterable[FrozenTrial], left: int) -> Iterator[Grant]:
        for trial in waiting:
            step = int(trial.user_attrs[PAUSED])
            if self.cost(step, end := self.after(step)) <= left:
                yield Grant(trial, end)

    def _best(self, slots: Sequence[FrozenTrial], step: int) -> set[int]:
        """Numbers of those that may go on from a rung: a design among the best third of all that were scored there, a
        published objective among the best third of these, at least one once all of them were begun.

        Equals go on together. A rung too early to tell designs apart, where most score nothing, then stops nobody
        instead of somebody.
        """
        kinds = {trial.number: _kind(trial) for trial in slots}
        scores = {trial.number: trial.intermediate_values[step] for trial in _scored(slots, step)}
        found: set[int] = set()
        for kind in ("design", SFT, "published"):
            own = scores if kind == "design" else {each: scores[each] for each in scores if kinds[each] == kind}
            count = len(own) // FACTOR
            if kind == "published" and not any(map(_waits_to_begin, slots)):
                count = max(1, count)
            best = sorted(own.values(), reverse=True)[:count]
            found |= {each for each, score in own.items() if kinds[each] == kind and best and score >= best[-1]}
        return found

    def _paused(self, slots: Iterable[FrozenTrial], step: int) -> list[FrozenTrial]:
        return sorted((trial for trial in slots if paused_at(trial) == step), key=lambda trial: _order(trial, step))


def _kind(trial: FrozenTrial) -> str:
    preset = published_as(trial.user_attrs)
    return "design" if preset is None else SFT if preset == SFT else "published"


def _waits_to_begin(trial: FrozenTrial) -> bool:
    """Whether a trial is a published objective that no engine has had yet."""
    return trial.state == TrialState.WAITING and _kind(trial) == "published" and not trial.user_attrs.get("attempts")


def paused_at(trial: FrozenTrial) -> int | None:
    """The rung at which a trial waits to be promoted."""
    step = trial.user_attrs.get(PAUSED)
    return int(step) if step is not None and trial.state == TrialState.WAITING else None


def _scored(slots: Iterable[FrozenTrial], step: int) -> list[FrozenTrial]:
    """Trials that were scored at a rung themselves."""
    return [trial for trial in slots if step in trial.intermediate_values and "same_as" not in trial.user_attrs]


def _order(trial: FrozenTrial, step: int) -> tuple[float, int]:
    return -trial.intermediate_values.get(step, 0.0), trial.number
