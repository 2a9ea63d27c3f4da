"""One engine and the trial it runs, as the supervisor sees them: commands out, events in, failures told apart."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ...spaces.errors import UserError
from ..launchers.process import Launch, Message, RunningEngine
from ..store.history import opponents
from ..store.outcome import Outcome, failed, outcome
from ..store.queue import Claim, LeaseLostError, Queue
from ..store.slots import is_anchor, published_as
from ..study.events import Event, ProblemsDone, RungScored, StepDone, TrialEnded
from ..study.failures import Failure, StudyFailedError, decide
from ..study.parts import LimitSettings
from ..study.trial import TrialSpec, trial_folder
from .summary import ABANDONED
from .task import Task

log = logging.getLogger(__name__)
STOP_SECONDS = 60.0
"""How long a trial may take to reach its next boundary when asked to stop; then its engine is killed."""


class Worker:
    """Keeps one engine alive and takes its trial from claim to verdict."""

    def __init__(
        self,
        index: int,
        folder: Path,
        queue: Queue,
        limits: LimitSettings,
        launch: Launch,
        emit: Callable[[Event], None],
    ) -> None:
        self.index = index
        self._folder, self._queue, self._limits, self._launch, self._emit = folder, queue, limits, launch, emit
        self.engine: RunningEngine | None = None
        self.inputs: Message | None = None  # fingerprints and counts, as the engine reported when it was ready
        self.check_inputs: Callable[[Mapping[str, str]], None] = lambda fingerprints: None  # raises UserError
        self.task: Task | None = None
        self._idle_deaths, self._last_sign = 0, time.monotonic()
        self.told_to_stop: str | None = None
        """What asked the engine to stop, if anything but this supervisor did: all of the study stops then."""
        self.disk_full = -math.inf
        """When the engine last found no room on the disk, in the seconds of `time.monotonic`."""

    @property
    def idle(self) -> bool:
        return self.engine is not None and self.inputs is not None and self.task is None

    def start_engine(self) -> None:
        self.inputs = None
        self.engine = self._queue.patience.wait_for(lambda: self._launch(self._folder, self.index))
        self._last_sign = time.monotonic()

    def begin(self, claim: Claim, spec: TrialSpec, title: str) -> None:
        """Start, or go on with, a claimed trial."""
        folder = trial_folder(self._folder, claim.number)
        self._queue.patience.wait_for(lambda: folder.prepare(spec))
        self.task = Task(claim, spec, title, folder)
        self._emit(self.task.started)
        if (result := folder.result) is not None:  # a supervisor died between the result and its telling
            self._on_result(self.task, {"result": result})
        else:
            self._send_trial(self.task)

    def _send_trial(self, task: Task) -> None:
        assert self.engine is not None
        self._last_sign = time.monotonic()
        more = {"passed": self._queue.passed(task.claim), "race": self._opponents(task)}
        self.engine.send({"type": "run", **task.asked, **more})

    def _opponents(self, task: Task) -> Message | None:
        """What a trial races against; None without races, and where others are compared with it."""
        facts = task.claim.attributes
        if task.spec.evaluation.racing is None or is_anchor(facts, self._queue.anchors):
            return None
        return opponents(self._queue.slots(), self._folder, published_as(facts))

    def receive(self) -> None:
        """Handle what the engine has said, and its death."""
        engine = self.engine
        if engine is None:
            return
        dead = engine.dead  # asked first: whatever it said before is still in the pipe
        for message in engine.receive():
            self._last_sign = time.monotonic()
            try:
                self._handle(message)
            except LeaseLostError as error:
                self._let_go(error)
        if dead and self.engine is engine:
            self._on_death(engine)

    def _on_death(self, engine: RunningEngine) -> None:
        kind, reason = engine.cause_of_death()
        if kind == "stopped" or self.told_to_stop is not None:
            self.told_to_stop = self.told_to_stop or reason
            self.abandon()
        else:
            self._on_failure(Failure(kind=kind, message=reason, traceback=engine.log_tail()))

    def _handle(self, message: Message) -> None:
        kind = message["type"]
        if kind == "ready":
            self.check_inputs(message["fingerprints"])
            self.inputs = message
            self._idle_deaths = 0
            if self.task is not None:
                self._send_trial(self.task)
        elif kind == "unplaced" and self.task is not None:
            self._give_back(self.task, "no node has room for its engine")
        elif kind == "signalled":
            self.told_to_stop = f"the engine got {message['name']}"
        elif kind == "failed":
            self._on_failure(Failure.model_validate(message["failure"]))
        elif self.task is not None and message.get("number") == self.task.claim.number:
            getattr(self, f"_on_{kind}")(self.task, message)

    def _on_step(self, task: Task, message: Message) -> None:
        self._emit(StepDone(task.claim.number, message["step"], message["steps"], message["metrics"]))

    def _on_problems(self, task: Task, message: Message) -> None:
        self._emit(ProblemsDone(task.claim.number, message["step"], message["done"], message["total"]))

    def _on_rung(self, task: Task, message: Message) -> None:
        assert self.engine is not None
        step, score, error = message["step"], message["score"], message["standard_error"]
        if step not in self._queue.rungs(task.claim):  # else passed again after a resume
            self._emit(RungScored(task.claim.number, step, score, error, final=False))
        prune = self._queue.report(task.claim, step, score)
        pause = not prune and self._queue.pauses(task.claim)
        word = {"prune": prune, "pause": pause}
        self.engine.send({"type": "decision", "number": task.claim.number, "step": step, **word})

    def _on_paused(self, task: Task, message: Message) -> None:
        self._queue.note(task.claim, seconds=task.seconds)
        self._queue.pause(task.claim, message["step"])
        self.task = None
        why = f"waits at step {message['step']} of {task.spec.training.steps}"
        self._emit(TrialEnded(task.claim.number, "paused", None, why))

    def _on_stopped(self, task: Task, message: Message) -> None:
        if task.stopping == "timeout":
            self._on_failure(self._timeout())
        else:
            self._give_back(task)

    def _timeout(self) -> Failure:
        return Failure(kind="timeout", message=f"not through after {self._limits.trial_minutes} minutes")

    def _on_result(self, task: Task, message: Message) -> None:
        result = message["result"]
        found = outcome(result, task.seconds)
        score, error = float(result["score"]), float(result["standard_error"])
        if found.state == "pruned":
            self._queue.report(task.claim, result["steps"], score)
        else:
            self._emit(RungScored(task.claim.number, task.spec.training.steps, score, error, final=True))
        self._finish(task, found, result)

    def _on_failure(self, failure: Failure) -> None:
        """Any fault recycles the engine, whose memory can no longer be trusted."""
        self.discard_engine()
        task = self.task
        if task is not None and task.stopping == "timeout":
            failure = self._timeout()  # killed because it did not stop when asked
        if task is not None and task.stopping == "interrupted":
            self._give_back(task, ABANDONED)
        elif failure.kind in ("bug", "user"):
            self._end_study(failure)
        elif task is not None:
            self._decide(task, failure)
        else:
            self._restart_idle(failure)

    def _restart_idle(self, failure: Failure) -> None:
        """An engine that dies between trials is replaced; one that never gets ready is a fault of the study."""
        self._idle_deaths += 1
        if self._idle_deaths > self._limits.retries:
            self._end_study(failure)
        log.warning("engine %d: %s; starting another", self.index, failure.message)
        self.start_engine()

    def _decide(self, task: Task, failure: Failure) -> None:
        claim, crashes = task.claim, 0
        if failure.kind == "crash":
            self._queue.note(claim, crash=(crash := task.crash()))
            crashes = crash["count"]
        decision = decide(failure, crashes, task.micro_batch, task.spec.training.effective_batch, self._limits.retries)
        self._queue.note(claim, **decision.attributes)
        self.start_engine()
        if decision.then == "wait":
            self.disk_full = time.monotonic()
            self._give_back(task, "disk full")
        elif decision.then == "retry":  # it is sent when the engine is ready
            log.warning("trial %d: %s: %s; trying again", claim.number, failure.kind, failure.message)
            self._queue.note_attempt(claim, failure.kind)
            self._emit(task.started)
        else:
            self._finish(task, failed(failure, task.seconds, infeasible=decision.then == "infeasible"))

    def _finish(self, task: Task, found: Outcome, result: Mapping[str, Any] | None = None) -> None:
        self._queue.finish(task.claim, found.verdict)
        self.task = None
        self._emit(TrialEnded(task.claim.number, found.state, result, found.reason))

    def _give_back(self, task: Task, why: str = "stopped") -> None:
        try:
            self._queue.note(task.claim, seconds=task.seconds)
            self._queue.give_back(task.claim, why)
        except LeaseLostError as error:
            why = str(error)
        self.task = None
        self._emit(TrialEnded(task.claim.number, "interrupted", None, why))

    def _end_study(self, failure: Failure) -> None:
        if self.task is not None:
            self._give_back(self.task, failure.kind)
        if failure.kind == "user":
            raise UserError(failure.message, field=failure.field)
        raise StudyFailedError(f"{failure.message}\n{failure.traceback}".rstrip())

    def tick(self) -> None:
        """Renew the lease; stop what takes too long; kill what does not move."""
        now = time.monotonic()
        task = self.task
        if task is not None:
            self._renew(task, now)
        if self.engine is None:
            return
        if task is not None and task.stopping is not None and now - task.stop_asked > STOP_SECONDS:
            self.engine.kill()
        elif not self.idle and now - self._last_sign > 60 * self._limits.silence_minutes:
            log.warning("engine %d was silent for %g minutes; restarting it", self.index, self._limits.silence_minutes)
            self.engine.kill()
        elif task is not None and self._limits.trial_minutes and task.seconds > 60 * self._limits.trial_minutes:
            self.stop("timeout")

    def _renew(self, task: Task, now: float) -> None:
        if now - task.renewed < self._limits.lease_seconds / 3:
            return
        task.renewed = now
        try:
            self._queue.renew(task.claim, task.seconds)
        except LeaseLostError as error:
            self._let_go(error)

    def _let_go(self, error: LeaseLostError) -> None:
        """Another supervisor has the trial; what is computed here is worth nothing."""
        log.warning("%s; letting it go", error)
        self.discard_engine()
        if self.task is not None:
            self._emit(TrialEnded(self.task.claim.number, "interrupted", None, str(error)))
        self.task = None
        self.start_engine()

    def stop(self, why: Literal["interrupted", "timeout"]) -> None:
        """Ask for a stop at the next step, checkpoint kept. Interrupted trials go back to the queue."""
        task = self.task
        if task is None or self.engine is None or task.stopping is not None:
            return
        task.stopping, task.stop_asked = why, time.monotonic()
        if self.inputs is not None:
            self.engine.send({"type": "stop", "number": task.claim.number})
        else:  # the engine is still loading and has not been given the trial
            self.discard_engine()
            self._on_stopped(task, {})

    def pause(self) -> None:
        """Have the trial stop at its next step: its lease cannot be renewed, and another host may take it over.

        It is given back, or let go, when the storage answers again.
        """
        if self.task is not None and self.engine is not None and self.inputs is not None and not self.task.paused:
            self.task.paused = True
            self.engine.send({"type": "stop", "number": self.task.claim.number})

    def abandon(self) -> None:
        """Kill the engine and put the trial back: it goes on from its last checkpoint."""
        self.discard_engine()
        if self.task is not None:
            self._give_back(self.task, ABANDONED)

    def discard_engine(self, *, kill: bool = True) -> None:
        """Without `kill` an idle engine ends by itself."""
        if self.engine is not None:
            if kill:
                self.engine.kill()
            self.engine.close()
        self.engine, self.inputs = None, None
