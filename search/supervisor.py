"""One `qtarget run`: create or resume the study, keep its engines busy until no slot is left, leave nothing running.

Never imports torch: a CUDA fault, an OOM kill or a hang takes an engine, not the night.
"""

from __future__ import annotations

import logging
import math
import select
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial

from .budget import Budget
from .config import StudyConfig
from .events import Event, Listener, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from .history import TrialRecord, best, end_state, plain_sft, read_records
from .launcher import EngineProcess
from .plan import Planned, Planner, first_slots
from .queue import Claim, Queue
from .signals import StopSignals
from .study import Study, joined_config, open_study
from .trial import trial_folder
from .warm_start import prior_of
from .worker import Launch, Worker

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
FULL_SECONDS = 30.0
"""Pause after an engine found the disk full, whatever it shows as free (quotas)."""
CLAIM_SECONDS = 2.0
"""Pause after a claim that found nothing: what is left runs elsewhere, and may come back."""


@dataclass(frozen=True)
class Summary:
    """How a call of `run_study` ended."""

    state: Literal["finished", "stopped"]
    study: str
    folder: str
    counts: Mapping[str, int]
    """Slots: waiting, running, complete, pruned, fail."""
    winner: TrialRecord | None
    sft: TrialRecord | None
    """Plain SFT, to compare the winner with."""
    seconds: float
    """Wall time of this call."""

    def as_dict(self) -> dict[str, Any]:
        winner, sft = (record.as_dict() if record else None for record in (self.winner, self.sft))
        return {**vars(self), "counts": dict(self.counts), "winner": winner, "sft": sft}


def run_study(
    config: StudyConfig,
    listeners: Sequence[Listener] = (),
    *,
    trials: int | None = None,
    workers: int = 1,
    until: datetime | None = None,
    hours: float | None = None,
    launch: Launch = EngineProcess,
) -> Summary:
    """Create the study, or go on with it, until every slot of its queue is finished.

    `trials` replaces the number of slots of the configuration. `until` (with a time zone) is a deadline at which
    running trials stop at their next step and keep their checkpoint; so do Ctrl-C and SIGTERM, a second one at once.
    `hours` is a budget of engine hours over all trials of the study, those before this call included; it ends likewise.
    Listeners hear every event and are closed at the end.

    Raises UserError for a configuration, data or storage that cannot work, StudyFailedError for a fault of the program.
    """
    if trials is not None:
        config = config.with_trials(trials)
    return _supervise(open_study(config), listeners, Budget(until, hours), workers, launch)


def join_study(
    url: str,
    study: str,
    listeners: Sequence[Listener] = (),
    *,
    base: Path | None = None,
    workers: int = 1,
    until: datetime | None = None,
    hours: float | None = None,
    launch: Launch = EngineProcess,
) -> Summary:
    """Work on a study that another process or host has created, until no slot is left.

    `base`: the folder that the study's relative paths start from on this host, where it is another one.
    Raises UserError when there is no such study, or this host would compute something else: other version, data, model.
    """
    study_here = open_study(joined_config(url, study, base))
    return _supervise(study_here, listeners, Budget(until, hours), workers, launch)


def _supervise(study: Study, listeners: Sequence[Listener], budget: Budget, workers: int, launch: Launch) -> Summary:
    try:
        with StopSignals() as signals:
            return Supervisor(study, listeners, budget, workers, launch).run(signals)
    finally:
        study.storage.close()
        for listener in listeners:
            listener.close()


class Supervisor:
    """Claims trials, hands them to workers, and listens to all of them in one thread."""

    def __init__(
        self, study: Study, listeners: Sequence[Listener], budget: Budget, workers: int, launch: Launch
    ) -> None:
        self._study, self._listeners, self._budget = study, listeners, budget
        self._queue = Queue(study.config, study.storage)
        self._prior = prior_of(study)
        self._workers = [
            Worker(index, study.folder, self._queue, study.config.limits, launch, self._emit)
            for index in range(workers)
        ]
        self._planner: Planner | None = None
        self._announced = False
        self._roomy = True
        self._reaped = self._claimed = -math.inf
        self._begun = time.monotonic()

    def run(self, signals: StopSignals) -> Summary:
        state: Literal["finished", "stopped", "failed"] = "failed"
        try:
            if self._study.stored:
                self._queue.reap()
            if self._study.stored and self._queue.is_done(self._study.config.search.trials):
                self._announce()
                state = "finished"
            else:
                self._start_engines(signals)
                state = self._work(signals)
        finally:
            self._leave(state)
        return self._summary("finished" if state == "finished" else "stopped")

    def _start_engines(self, signals: StopSignals) -> None:
        """The first engine sees all inputs before the study is created: what cannot work leaves nothing behind."""
        first, *others = self._workers
        first.start_engine()
        while first.inputs is None and not signals.count:
            self._listen(signals)
        if first.inputs is None:
            return
        self._study.create(first.inputs["fingerprints"], self._prior)
        self._planner = Planner(self._study.config, first.inputs["fingerprints"])
        self._queue.fill(first_slots(self._study.config, self._prior), self._study.config.search.trials)
        self._announce()
        for worker in others:
            worker.start_engine()

    def _announce(self) -> None:
        self._announced = True
        counts = self._queue.counts()
        finished = counts["complete"] + counts["pruned"] + counts["fail"]
        config = self._study.shown_config
        self._emit(StudyStarted(self._study.name, str(self._study.folder), sum(counts.values()), finished, config))

    def _work(self, signals: StopSignals) -> Literal["finished", "stopped"]:
        while not (signals.count or self._budget.spent(self._engine_seconds())):
            self._reap_now_and_then()
            idle = [worker for worker in self._workers if worker.idle]
            if idle and time.monotonic() - self._claimed > CLAIM_SECONDS and self._has_room():
                for worker in idle:
                    self._next_trial(worker)
                if not any(worker.task for worker in self._workers) and not self._queue.unfinished():
                    return "finished"
            self._listen(signals)
        self._stop_all(signals)
        return "stopped"

    def _has_room(self) -> bool:
        """Whether the disk takes another trial; while it does not, the study waits instead of failing trials."""
        free = shutil.disk_usage(self._study.folder).free / 2**30
        needed = self._study.config.limits.disk_gigabytes
        last = max(worker.disk_full for worker in self._workers)
        enough = free >= needed and time.monotonic() - last > FULL_SECONDS
        if not enough and self._roomy:
            log.warning("%s has %.1f GiB free, a trial needs %.1f; waiting for room", self._study.folder, free, needed)
        self._roomy = enough
        return enough

    def _reap_now_and_then(self) -> None:
        if time.monotonic() - self._reaped > self._study.config.limits.lease_seconds / 4:
            self._reaped = time.monotonic()
            for number in self._queue.reap():
                log.warning("trial %d was left by a supervisor that is gone; it waits again", number)

    def _next_trial(self, worker: Worker) -> None:
        """Claim until a trial needs an engine: repetitions of finished ones are told at once."""
        assert self._planner is not None
        while (claim := self._queue.claim()) is not None:
            planned = self._planner.plan(claim)
            self._queue.note(claim, **planned.attributes)
            twin = self._queue.finished_twin(planned.spec.canonical_id)
            if twin is None:
                worker.begin(claim, planned.spec, planned.title)
                if worker.task is not None:
                    return
            else:
                self._credit(claim, planned, twin)
        self._claimed = time.monotonic()

    def _credit(self, claim: Claim, planned: Planned, twin: FrozenTrial) -> None:
        """The trial is provably the same gradient as a finished one: same outcome, no training."""
        folder = trial_folder(self._study.folder, twin.number)
        spec, steps = planned.spec.model_dump(mode="json"), self._study.config.training.steps
        self._emit(TrialStarted(claim.number, planned.title, spec, str(folder.path), claim.attempt, steps))
        self._queue.credit(claim, twin)
        self._emit(TrialEnded(claim.number, end_state(twin), folder.result, f"same as trial {twin.number}"))

    def _listen(self, signals: StopSignals) -> None:
        """Wait for the engines, a signal or the next tick."""
        sources: list[EngineProcess | StopSignals] = [signals]
        sources += [worker.engine for worker in self._workers if worker.engine is not None]
        readable, _, _ = select.select(sources, [], [], POLL_SECONDS)
        if signals in readable:
            signals.drain()
        for worker in self._workers:
            worker.receive()
            worker.tick()

    def _stop_all(self, signals: StopSignals) -> None:
        """First signal or deadline: stop at the next step. Second signal: at once."""
        for worker in self._workers:
            worker.stop("interrupted")
        while any(worker.task for worker in self._workers) and signals.count < 2:
            self._listen(signals)

    def _leave(self, state: Literal["finished", "stopped", "failed"]) -> None:
        for worker in self._workers:
            worker.abandon() if worker.task is not None else worker.close()
        if self._announced:
            self._emit(StudyEnded(state, self._summary("stopped" if state != "finished" else state).as_dict()))

    def _summary(self, state: Literal["finished", "stopped"]) -> Summary:
        records = read_records(self._queue.slots(), self._study.folder) if self._announced else []
        counts = self._queue.counts() if self._announced else {}
        seconds = time.monotonic() - self._begun
        return Summary(
            state, self._study.name, str(self._study.folder), counts, best(records), plain_sft(records), seconds
        )

    def _engine_seconds(self) -> float:
        """Engine time of all trials of the study, the running ones of this supervisor included."""
        if self._budget.hours is None:
            return 0.0
        running = {worker.task.claim.number: worker.task.seconds for worker in self._workers if worker.task}
        records = read_records(self._queue.slots(), self._study.folder)
        return sum(running.values()) + sum(r.seconds or 0.0 for r in records if r.number not in running)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener.on_event(event)
        if isinstance(event, TrialEnded) and event.state != "interrupted":
            self._tidy()

    def _tidy(self) -> None:
        """Checkpoints are several times the model: keep the best trial's and those of trials to go on with."""
        records = read_records(self._queue.slots(), self._study.folder)
        winner = best(records)
        for record in records:
            if record.finished and (winner is None or record.number != winner.number):
                shutil.rmtree(record.folder / "checkpoint", ignore_errors=True)
