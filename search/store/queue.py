"""The queue is the budget: N slots in the storage, claimed, given back and finished under the study's lock.

Nothing counts trials, so m supervisors on k hosts neither overshoot nor undershoot. A slot that is given back (Ctrl-C,
a dead supervisor) is the same Optuna trial again: same number, parameters, folder, tracking run and rung scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from ..store import leases
from ..study.config import StudyConfig
from .halving import GRANTED, PAUSED, Grant, Halving, paused_at
from .leases import Claim, Claims, Lease, LeaseLostError
from .outcome import CREDITED, WORST, Verdict
from .patience import Patience
from .prior import Prior
from .sampling import Filled, Learnt, make_pruner, make_sampler
from .slots import CANONICAL, FIXED, WITHDRAWN, Slot, by_hand, is_empty, slots_of
from .storage import StudyStorage

__all__ = ["Claim", "LeaseLostError", "Queue", "Slot", "Verdict"]

BEHIND = "behind"
"""User attribute of a waiting slot: number of the running trial of the same gradient whose outcome it waits for."""


class Queue(Claims):
    """The slots of one study."""

    def __init__(self, config: StudyConfig, storage: StudyStorage) -> None:
        super().__init__(storage, config.limits.lease_seconds)
        self._study, self._settings = config.study, config.search
        self.anchors, self._space = config.search.anchors, config.space
        self._pruner = make_pruner(config.search, config.training.steps)
        self.halving = Halving.of(config)
        """Where trials pause; None where they do not."""
        self.more: Callable[[int], Slot] = lambda count: Slot()
        """The slot after so many, where a budget in steps has room for it."""
        self._watch = leases.Watch()
        self._view: optuna.Study | None = None
        """The study for reading; its trials are read anew each time."""

    def load(self, number: int | None = None) -> optuna.Study:
        """A fresh view of the study, with the sampler that fills trial `number`, if one is to be filled."""
        backend = self._storage.backend
        if number is not None:
            backend = (Filled if self.halving is None else Learnt).view(backend, number)
        study = optuna.load_study(study_name=self._study, storage=backend, pruner=self._pruner)
        if number is not None:
            stored = study.user_attrs.get("prior")
            prior = None if stored is None else Prior.model_validate(stored)
            study.sampler = make_sampler(self._settings, number, self._space, prior)
        return study

    def fill(self, first: Sequence[Slot], trials: int) -> None:
        """Make the study hold `trials` slots: `first`, then empty ones; a smaller budget withdraws waiting ones.

        What was put in by hand comes on top, and stays.
        """
        with self._storage.lock():
            study = self.load()
            count = len(self._budgeted(study))
            self._enqueue(study, [*first[count:], *[Slot()] * trials][: max(0, trials - count)])
            budgeted = self._budgeted(study)
            waiting = [trial for trial in budgeted if trial.state == TrialState.WAITING and paused_at(trial) is None]
            for trial in waiting[::-1][: max(0, len(budgeted) - trials)]:
                self._storage.backend.set_trial_user_attr(trial._trial_id, WITHDRAWN, True)
                self._storage.backend.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def put(self, choose: Callable[[list[FrozenTrial]], Sequence[Slot]]) -> list[int]:
        """Enqueue what `choose` makes of the slots that there are; the numbers of the new trials."""
        with self._storage.lock():
            study = self.load()
            return self._enqueue(study, choose(self.slots(study)))

    def _enqueue(self, study: optuna.Study, slots: Sequence[Slot]) -> list[int]:
        known = {trial.number for trial in study.get_trials(deepcopy=False)}
        for slot in slots:
            study.enqueue_trial(dict(slot.parameters), user_attrs=dict(slot.attributes))
        return [trial.number for trial in study.get_trials(deepcopy=False) if trial.number not in known]

    def _budgeted(self, study: optuna.Study | None = None) -> list[FrozenTrial]:
        return [trial for trial in self.slots(study) if not by_hand(trial)]

    def slots(self, study: optuna.Study | None = None) -> list[FrozenTrial]:
        """Every slot of the study, in the order of the queue."""
        self._view = study or self._view or self.load()
        return slots_of(self._view.get_trials(deepcopy=False))

    @property
    def patience(self) -> Patience:
        return self._storage.patience

    def claim(self) -> Claim | None:
        """The next waiting slot, now ours; None when none waits, or all that wait stand behind a running twin."""
        with self._storage.lock():
            if self.halving is None:
                taken = next(filter(None, map(self._take, self._claimable())), None)
            else:
                taken = self._take_granted(self.halving)
        if taken is None:
            return None
        trial, lease, attempt = taken
        # samplers may think for a while: outside the lock
        return Claim(Trial(self.load(trial.number), trial._trial_id), lease, attempt)

    def _take_granted(self, halving: Halving) -> tuple[FrozenTrial, Lease, int] | None:
        """The trial whose turn it is, with the steps it may go, a new one where there is room for more."""
        while (grant := self._next(halving)) is not None:
            trial = grant.trial or self._appended()
            self._grant(trial._trial_id, grant.until)
            if (taken := self._take(trial, again=paused_at(trial) is not None)) is not None:
                return taken
        return None

    def _next(self, halving: Halving) -> Grant | None:
        ready = [trial for trial in self._claimable() if paused_at(trial) is None]
        return halving.next(self.slots(), ready)

    def _appended(self) -> FrozenTrial:
        """A slot more, at the end of the queue."""
        study = self.load()
        number = self._enqueue(study, [self.more(len(self._budgeted(study)))])[0]
        return next(trial for trial in self.slots(study) if trial.number == number)

    def _grant(self, trial_id: int, until: int) -> None:
        self._set(trial_id, GRANTED, until)
        self._set(trial_id, PAUSED, None)

    def _claimable(self) -> Iterator[FrozenTrial]:
        """Waiting slots: those whose design is known before those that the sampler fills."""
        slots = self.slots()
        running = {trial.number for trial in slots if trial.state == TrialState.RUNNING}
        for trial in sorted(slots, key=lambda trial: (is_empty(trial), trial.number)):
            if trial.state == TrialState.WAITING and trial.user_attrs.get(BEHIND) not in running:
                yield trial

    def _take(self, trial: FrozenTrial, again: bool = False) -> tuple[FrozenTrial, Lease, int] | None:
        """The trial, now ours; None when it no longer waits, which takes a server that lost our lock.

        `again`: it goes on from where it paused, which is no other attempt.
        """
        lease = self._new_lease()
        attempt = int(trial.user_attrs.get("attempts", 0)) + (not again)
        # the lease first: a RUNNING trial without one could not be told from a lost one
        self._set(trial._trial_id, leases.ATTRIBUTE, lease.model_dump())
        self._set(trial._trial_id, "attempts", attempt)
        if not self._storage.backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            self._set(trial._trial_id, leases.ATTRIBUTE, None)  # whoever runs it notices, and it is reaped
            return None
        return trial, lease, attempt

    def report(self, claim: Claim, step: int, score: float) -> bool:
        """Record a rung's score; whether the pruner gives the trial up. Never a baseline: a comparison needs it."""
        with self._storage.lock():
            self._check(claim)
            if step not in self.rungs(claim):
                claim.trial.report(score, step)
        return not claim.attributes.get("baseline") and bool(claim.trial.should_prune())

    def passed(self, claim: Claim) -> list[int]:
        """Rungs that a claimed trial need not be scored at again."""
        return [] if self.halving is None else self.halving.passed(claim.frozen)

    def pauses(self, claim: Claim) -> bool:
        """Whether a trial that was scored at a rung pauses there; one that goes on is granted the steps for it."""
        if self.halving is None:
            return False
        with self._storage.lock():
            self._check(claim)
            until = self.halving.goes_on(claim.frozen, self.slots())
            if until is not None:
                self._grant(claim.trial._trial_id, until)
        return until is None

    def pause(self, claim: Claim, step: int) -> None:
        """Put a trial that was scored at a rung aside, its checkpoint kept, until it is promoted."""
        with self._storage.lock():
            self._check(claim)
            self._set(claim.trial._trial_id, PAUSED, step)
            self._wait_again(claim.trial._trial_id)

    def give_back(self, claim: Claim, why: str) -> None:
        """Put the trial back among the waiting ones, to go on from its checkpoint."""
        with self._storage.lock():
            self._check(claim)
            self._release(claim.trial._trial_id, claim.attributes, why)

    def finish(self, claim: Claim, verdict: Verdict) -> None:
        """Tell the outcome; raises LeaseLostError when the trial has been taken over."""
        with self._storage.lock():
            self._check(claim)
            self.note(claim, **verdict.attributes)
            if verdict.violated is not None and not claim.trial.constraints:
                claim.trial.set_constraint(verdict.violated, 1.0)
            for name, value in verdict.constraints.items():
                if name not in claim.trial.constraints:
                    claim.trial.set_constraint(name, value)
            study = claim.trial.study
            values = [verdict.score or 0.0, *verdict.further]
            values += [WORST] * (len(study.directions) - len(values))
            study.tell(claim.number, values if verdict.state == TrialState.COMPLETE else None, state=verdict.state)

    def enter(self, claim: Claim, attributes: Mapping[str, Any]) -> FrozenTrial | None:
        """Keep what a claimed trial is; its twin, if there is one.

        The twin: a trial of the same canonical id that is finished (a failed one proves nothing), else one that runs,
        else one that is paused.
        """
        with self._storage.lock():  # of two that enter at once, one finds the other
            self.note(claim, **attributes)
            twins = [
                trial
                for trial in self.slots()
                if trial.user_attrs.get(CANONICAL) == attributes[CANONICAL]
                and trial.number != claim.number
                and "same_as" not in trial.user_attrs
            ]
        order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        ranked = sorted((trial for trial in twins if trial.state in order), key=lambda trial: order.index(trial.state))
        whole = self.halving is None or self.halving.is_whole(claim.frozen)
        paused = [] if whole else [trial for trial in twins if paused_at(trial) is not None]
        return next(iter([*ranked, *paused]), None)

    def stand_behind(self, claim: Claim, number: int) -> None:
        """Put a trial back until the running trial `number` has an outcome; that was no attempt."""
        with self._storage.lock():
            self._check(claim)
            self.note(claim, **{BEHIND: number, "attempts": claim.attempt - 1})
            self._wait_again(claim.trial._trial_id)

    def credit(self, claim: Claim, twin: FrozenTrial) -> None:
        """Finish a claim with what its twin came to; if that is paused, as one that went no further."""
        for step, score in twin.intermediate_values.items():
            if step not in self.rungs(claim):
                claim.trial.report(score, step)
        copied = {name: twin.user_attrs[name] for name in CREDITED if name in twin.user_attrs}
        facts = {**copied, "same_as": twin.number, "seconds": 0.0}
        score, *further = twin.values or [None]
        state = TrialState.PRUNED if paused_at(twin) is not None else twin.state
        verdict = Verdict(state, score, facts, constraints=dict(twin.constraints), further=tuple(further))
        self.finish(claim, verdict)

    def settle(self, claim: Claim, slot: Slot) -> None:
        """Keep with a claimed slot what it is to run, as if it had been enqueued so."""
        if slot.parameters:
            self._storage.backend.set_trial_system_attr(claim.trial._trial_id, FIXED, dict(slot.parameters))
        self.note(claim, **slot.attributes)
        claim.trial = Trial(claim.trial.study, claim.trial._trial_id)  # it reads its fixed parameters once

    def unfinished(self) -> int:
        """Slots that wait or run, here or elsewhere; not those that are paused and have nothing left to go on with."""
        counts = self.counts()
        return counts["waiting"] + counts["running"]

    def is_done(self, trials: int | None) -> bool:
        """Whether there are `trials` slots (None: any number), and those put in by hand, and all are finished.

        Where trials pause: at least so many, and none can go on with what is left of the steps.
        """
        slots = self.slots()
        if self.halving is None:
            return all(trial.state.is_finished() for trial in slots) and trials in (None, len(self._budgeted()))
        begun = trials is None or len(self._budgeted()) >= trials
        return begun and not self.unfinished() and self.halving.next(slots, []) is None

    def reap(self) -> list[int]:
        """Put trials whose supervisor is gone back among the waiting ones; their numbers."""
        with self._storage.lock():
            running = [trial for trial in self.slots() if trial.state == TrialState.RUNNING]
            held = {trial.number: leases.read_lease(trial.user_attrs) for trial in running}
            tokens = self._watch.lost([lease for lease in held.values() if lease is not None])
            lost = [trial for trial in running if (lease := held[trial.number]) is None or lease.token in tokens]
            for trial in lost:
                self._release(trial._trial_id, trial.user_attrs, "supervisor lost")
        return [trial.number for trial in lost]

    def counts(self) -> dict[str, int]:
        """Slots by state: waiting, running, complete, pruned, fail, and paused where trials pause."""
        names = ("waiting", "running", "complete", "pruned", "fail", *(("paused",) if self.halving is not None else ()))
        states = [self._state(trial) for trial in self.slots()]
        return {name: states.count(name) for name in names}

    def _state(self, trial: FrozenTrial) -> str:
        return "paused" if self.halving is not None and paused_at(trial) is not None else trial.state.name.lower()
