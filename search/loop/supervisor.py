"""One `qtarget run`: create or resume the study, keep its engines busy until no slot is left, leave nothing running.

Never imports torch: a CUDA fault, an OOM kill or a hang takes an engine, not the night.
"""

from __future__ import annotations

import logging
import math
import select
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from ..confirmation.race import wanted
from ..launchers.choose import place
from ..launchers.process import Launch, RunningEngine
from ..store.disk import Disk, drop_checkpoints, drop_one
from ..store.history import TrialRecord, best, plain_sft, read_records
from ..store.queue import Queue
from ..store.study import Study, joined_config, open_study
from ..study.config import StudyConfig
from ..study.events import Event, Listener, StudyEnded, StudyStarted, TrialEnded
from ..study.resume import refuse_other_inputs
from .budget import Budget, Over, Spending
from .dispatch import Dispatcher
from .log import note_use, run_log, used
from .signals import StopSignals
from .summary import Summary, ended
from .warm_start import prior_of
from .worker import Worker

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
CLAIM_SECONDS = 2.0
"""Pause after a claim that found nothing: what is left runs elsewhere, and may come back."""
LOOK_SECONDS = 10.0
"""Between two looks at what trials elsewhere have used of a budget of hours."""


def run_study(
    config: StudyConfig,
    listeners: Sequence[Listener] = (),
    *,
    trials: int | None = None,
    workers: int = 1,
    until: datetime | None = None,
    hours: float | None = None,
    reserve: int = 0,
    launch: Launch | None = None,
) -> Summary:
    """Create the study, or go on with it, until every slot of its queue is finished.

    `trials` replaces the number of slots of the configuration. `until` (with a time zone) is a deadline at which
    running trials stop at their next step and keep their checkpoint; so they do at Ctrl-C, SIGTERM, SIGHUP and
    SIGUSR1, whether this process or an engine gets it, and at once when the same one comes again.
    `hours` is a budget of engine hours over all trials of the study, those before this call included; it ends likewise.
    With `reserve` the search ends early enough for a confirmation on so many engines to fit into what is left of both,
    if it ever does.
    Listeners hear every event and are closed at the end.

    Raises UserError for a configuration, data or storage that cannot work, StudyFailedError for a fault of the program.
    """
    if trials is not None:
        config = config.with_trials(trials)
    return _supervise(open_study(config), listeners, Budget(until, hours, reserve), workers, launch)


def join_study(
    url: str,
    study: str,
    listeners: Sequence[Listener] = (),
    *,
    base: Path | None = None,
    workers: int = 1,
    until: datetime | None = None,
    hours: float | None = None,
    launch: Launch | None = None,
) -> Summary:
    """Work on a study that another process or host has created, until no slot is left.

    `base`: the folder that the study's relative paths start from on this host, where it is another one.
    Raises UserError when there is no such study, or this host would compute something else: other version, data, model.
    """
    study_here = open_study(joined_config(url, study, base), joined=True)
    return _supervise(study_here, listeners, Budget(until, hours), workers, launch)


def _supervise(
    study: Study, listeners: Sequence[Listener], budget: Budget, workers: int, launch: Launch | None
) -> Summary:
    before = used()
    try:
        if launch is None:
            launch, workers = place(study.config.engine.ranks, workers)
        with run_log(study.folder) as written, StopSignals() as signals:
            return Supervisor(study, [written, *listeners], budget, workers, launch).run(signals)
    finally:
        study.storage.close()
        for listener in listeners:
            _guarded(listener.close)
        note_use(study.folder, before)


def _guarded(action: Callable[[], None]) -> str | None:
    """Do what only shows or tracks: it may not end the study, nor leave the process. Why it failed, if it did."""
    try:
        action()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return None


class Supervisor:
    """Claims trials, hands them to workers, and listens to all of them in one thread."""

    def __init__(
        self, study: Study, listeners: Sequence[Listener], budget: Budget, workers: int, launch: Launch
    ) -> None:
        self._study, self._listeners = study, listeners
        self._failing: list[Listener] = []
        self._spending = Spending(budget, study.config)
        self._disk = Disk(study.folder, study.config.limits.disk_gigabytes)
        self._queue = Queue(study.config, study.storage)
        self._prior = prior_of(study)
        self._workers = [
            Worker(index, study.folder, self._queue, study.config.limits, launch, self._emit)
            for index in range(workers)
        ]
        self._dispatcher: Dispatcher | None = None
        self._announced = False
        self._reaped = self._claimed = self._looked = -math.inf
        self._begun = time.monotonic()
        self._ended: Over | Literal["finished", "signal"] = "finished"

    def run(self, signals: StopSignals) -> Summary:
        state: Literal["finished", "stopped", "failed"] = "failed"
        self._study.storage.patience.give_up = lambda: self._is_over(signals)
        self._study.storage.patience.held_up = self._pause_if_long
        try:
            if self._study.stored:
                self._queue.reap()
            if self._study.stored and self._is_done():
                self._announce()
                state = "finished"
            else:
                self._start_engines(signals)
                state = self._work(signals)
        finally:
            try:
                self._leave(state)
            finally:
                self._queue.leave()
        return self._summary("finished" if state == "finished" else "stopped")

    def _is_done(self) -> bool:
        """Whether all is finished, and a confirmation asks for nothing more."""
        config = self._study.config
        if config.race is None:
            return self._queue.is_done(config.search.slots)
        records = read_records(self._queue.slots(), self._study.folder)
        return self._queue.is_done(None) and not wanted(config, records, 1)

    def _pause_if_long(self, seconds: float) -> None:
        """A storage that is away for so long may have been out of reach for this host only."""
        if seconds > self._study.config.limits.lease_seconds / 2 and not self._study.storage.url.startswith("sqlite"):
            for worker in self._workers:
                worker.pause()

    def _start_engines(self, signals: StopSignals) -> None:
        """The first engine sees all inputs before the study is created: what cannot work leaves nothing behind."""
        first, *others = self._workers
        first.start_engine()
        while first.inputs is None and not self._is_over(signals):
            self._listen(signals)
        if first.inputs is None:
            return
        self._disk.expect(int(first.inputs.get("checkpoint_bytes", 0)), len(self._workers))
        self._spending.start_seconds = time.monotonic() - self._begun
        self._study.create(first.inputs["fingerprints"], self._prior)
        for worker in self._workers:
            worker.check_inputs = partial(refuse_other_inputs, first.inputs["fingerprints"], study=self._study.name)
        self._dispatcher = Dispatcher(self._study, self._queue, first.inputs["fingerprints"], self._emit)
        self._dispatcher.fill(self._prior, len(self._workers))
        self._announce()
        for worker in others:
            worker.start_engine()

    def _announce(self) -> None:
        self._announced = True
        records, config = self._look(), self._study.shown_config
        done, folder = ended(records), str(self._study.folder)
        inputs = next((worker.inputs for worker in self._workers if worker.inputs is not None), {})
        warnings, halving = tuple(inputs.get("warnings", ())), self._queue.halving
        budget, spent = (None, 0) if halving is None else (halving.budget, halving.spent(self._queue.slots()))
        shown = (self._study.name, folder, len(records), len(done), config, done, warnings)
        self._emit(StudyStarted(*shown, budget_steps=budget, spent_steps=spent, identity=self._study.identity))

    def _work(self, signals: StopSignals) -> Literal["finished", "stopped"]:
        while not self._is_over(signals):
            self._reap_now_and_then()
            self._look_now_and_then()
            idle = [worker for worker in self._workers if worker.idle]
            if idle and time.monotonic() - self._claimed > CLAIM_SECONDS and self._has_room():
                self._hand_out(idle)
                if not any(worker.task for worker in self._workers) and not self._queue.unfinished():
                    drop_checkpoints(self._look(), paused=not self._study.config.search.goes_further)
                    return "finished"
            self._listen(signals)
        self._stop_all(signals)
        return "stopped"

    def _hand_out(self, idle: Sequence[Worker]) -> None:
        assert self._dispatcher is not None
        self._dispatcher.ask_for(len(idle))
        for worker in idle:
            if not self._dispatcher.give(worker):
                self._claimed = time.monotonic()

    def _is_over(self, signals: StopSignals) -> bool:
        """Whether someone has asked to stop, or the budget has run out."""
        running = {worker.task.claim.number: worker.task.seconds for worker in self._workers if worker.task}
        asked = signals.count or any(worker.told_to_stop for worker in self._workers)
        over: Over | Literal["signal"] | None = "signal" if asked else self._spending.over(running)
        self._ended = over or "finished"
        return over is not None

    def _has_room(self) -> bool:
        """Whether the disk takes another trial, be it for a paused one's checkpoint."""
        last_full = max(worker.disk_full for worker in self._workers)
        while not (roomy := self._disk.has_room(last_full)) and drop_one(self._look()):
            pass
        if not roomy:
            self._claimed = time.monotonic()  # each question reads the whole study: no oftener than for a trial
        return roomy

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()

    def _look(self) -> list[TrialRecord]:
        """How the trials stand, told to the budget."""
        self._looked = time.monotonic()
        records = read_records(self._queue.slots(), self._study.folder) if self._announced else []
        self._spending.look(records)
        return records

    def _reap_now_and_then(self) -> None:
        if time.monotonic() - self._reaped > self._study.config.limits.lease_seconds / 4:
            self._reaped = time.monotonic()
            for number in self._queue.reap():
                log.warning("trial %d was left by a supervisor that is gone; it waits again", number)

    def _listen(self, signals: StopSignals) -> None:
        """Wait for the engines, a signal or the next tick."""
        sources: list[RunningEngine | StopSignals] = [signals]
        sources += [worker.engine for worker in self._workers if worker.engine is not None]
        readable, _, _ = select.select(sources, [], [], POLL_SECONDS)
        if signals in readable:
            signals.drain()
        for worker in self._workers:
            worker.receive()
            worker.tick()

    def _stop_all(self, signals: StopSignals) -> None:
        """First signal or deadline: stop at the next step. Second signal: at once."""
        told = next((worker.told_to_stop for worker in self._workers if worker.told_to_stop), signals.name)
        if told and any(worker.task for worker in self._workers):
            log.warning("%s: running trials stop at their next step", told)
        for worker in self._workers:
            worker.stop("interrupted")
        while any(worker.task for worker in self._workers) and signals.count < 2:
            self._listen(signals)

    def _leave(self, state: Literal["finished", "stopped", "failed"]) -> None:
        for worker in self._workers:
            worker.discard_engine(kill=not worker.idle)
        for worker in self._workers:
            worker.abandon()
        if self._announced:
            summary = self._summary("stopped" if state != "finished" else state)
            self._emit(StudyEnded(state, summary.as_dict(), ended(self._look())))

    def _summary(self, state: Literal["finished", "stopped"]) -> Summary:
        records = self._look()
        counts = self._queue.counts() if self._announced else {}
        folder, seconds = str(self._study.folder), time.monotonic() - self._begun
        return Summary(state, self._study.name, folder, counts, best(records), plain_sft(records), seconds, self._ended)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            failure = _guarded(partial(listener.on_event, event))
            if failure is not None and listener not in self._failing:
                self._failing.append(listener)
                log.warning("%s failed (%s); the study goes on", type(listener).__name__, failure)
        if isinstance(event, TrialEnded) and event.state != "interrupted":
            drop_checkpoints(self._look())
