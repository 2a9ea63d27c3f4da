"""From the queue to an idle engine: slots are asked for, claimed and planned, and what need not be trained is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from optuna.trial import FrozenTrial, TrialState

from ...spaces.errors import UserError
from ..confirmation.race import wanted
from ..store.history import end_state, read_records
from ..store.prior import Prior
from ..store.queue import Claim, Queue, Verdict
from ..store.slots import RIVAL, Slot
from ..store.study import Study
from ..study.events import Event, TrialEnded, TrialStarted
from ..study.trial import trial_folder
from .plan import Planned, Planner, first_slots, later_slot
from .rivals import next_rival
from .worker import Worker

log = logging.getLogger(__name__)


class Dispatcher:
    """Gives workers the trials of a study whose inputs are known."""

    def __init__(self, study: Study, queue: Queue, fingerprints: dict[str, str], emit: Callable[[Event], None]) -> None:
        self._config, self._folder, self._queue, self._emit = study.config, study.folder, queue, emit
        self._planner = Planner(study.config, fingerprints)

    def fill(self, prior: Prior | None, engines: int) -> None:
        """Put the first slots into the queue: all of a search, as many of a race as there are engines."""
        if self._config.race is None:
            first = first_slots(self._config, prior)
            self._queue.more = partial(later_slot, self._config, first)
            self._queue.fill(first, self._config.search.slots)
        else:
            self.ask_for(engines)

    def ask_for(self, count: int) -> None:
        """Have what a race wants next in its queue, for `count` engines that wait; a search has its slots already."""

        def missing(slots: list[FrozenTrial]) -> list[Slot]:
            waiting = sum(slot.state == TrialState.WAITING for slot in slots)
            return wanted(self._config, read_records(slots, self._folder), max(0, count - waiting))

        if self._config.race is not None:
            self._queue.put(missing)

    def give(self, worker: Worker) -> bool:
        """Claim until a trial needs the worker's engine, and say whether one does; repetitions are told at once."""
        while (claim := self._queue.claim()) is not None:
            if claim.attributes.get(RIVAL) and "target" not in claim.attributes:
                records = read_records(self._queue.slots(), self._folder)
                self._queue.settle(claim, next_rival(self._config, records, claim.number))
            try:
                planned = self._planner.plan(claim)
            except UserError as error:
                self._refuse(claim, str(error))
                continue
            twin = self._queue.enter(claim, planned.attributes)
            if twin is None:
                worker.begin(claim, planned.spec, planned.title)
                if worker.task is not None:
                    return True
            elif twin.state.is_finished():
                self._credit(claim, planned, twin)
            else:  # trained right now by another worker: its outcome will be ours
                self._queue.stand_behind(claim, twin.number)
        return False

    def _refuse(self, claim: Claim, reason: str) -> None:
        """Fail a slot that somebody has enqueued by hand and that cannot be run, and say why."""
        log.warning("trial %d: %s", claim.number, reason)
        facts = {"title": "a point from outside", "failure": {"kind": "user", "message": reason}}
        self._queue.finish(claim, Verdict(TrialState.FAIL, attributes=facts))
        self._emit(TrialEnded(claim.number, "failed", None, reason))

    def _credit(self, claim: Claim, planned: Planned, twin: FrozenTrial) -> None:
        """The trial is provably the same gradient as a finished one: same outcome, no training."""
        folder = trial_folder(self._folder, twin.number)
        spec, steps = planned.spec.model_dump(mode="json"), self._config.training.steps
        self._emit(TrialStarted(claim.number, planned.title, spec, str(folder.path), claim.attempt, steps))
        self._queue.credit(claim, twin)
        self._emit(TrialEnded(claim.number, end_state(twin), folder.result, f"same as trial {twin.number}"))
