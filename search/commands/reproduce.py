"""`qtarget reproduce`: one trial again, from its spec.json alone, and how far the score is from the one it had."""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from ... import __version__
from ...spaces.errors import UserError
from ..launchers.local import local_launch
from ..launchers.process import Launch, Message, RunningEngine
from ..loop.signals import StopSignals
from ..report.items import last_sheet, paired
from ..store.history import load_history
from ..store.study import searched
from ..study.config import StudyConfig
from ..study.config_file import find_study, write_folder
from ..study.events import (
    Event,
    ProblemsDone,
    RungScored,
    StepDone,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from ..study.failures import Failure, StudyFailedError
from ..study.files import SEEN_FILE, read_json, write_json
from ..study.trial import TrialFolder, TrialSpec
from ..terminal.progress import ProgressDisplay

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Gap:
    """What came out now, and what came out then. Scores are those of the common items."""

    trial: int
    title: str
    folder: str
    items: int
    """(problem, sample) pairs that both have."""
    then: float
    now: float
    verdicts_differ: int
    completions_differ: int
    interval: tuple[float, float] | None
    """95 % of the difference over problems; None with fewer than two."""

    @property
    def sentence(self) -> str:
        if not self.verdicts_differ and not self.completions_differ:
            return f"Reproduced: {self.now:.4f}, all {self.items} completions are the same."
        around = f" [{100 * self.interval[0]:+.1f}, {100 * self.interval[1]:+.1f}]" if self.interval else ""
        return (
            f"Then {self.then:.4f}, now {self.now:.4f}: {100 * (self.now - self.then):+.2f} points{around} on "
            f"{self.items} items; {self.verdicts_differ} verdicts and {self.completions_differ} completions differ. "
            "Other hardware, thread counts and library versions change the last bits of every step."
        )


def reproduce(path: Path, number: int, console: Console, *, launch: Launch | None = None) -> dict[str, Any] | None:
    """Train and score trial `number` of a study (its YAML file or folder) again, in a folder of its own.

    A call that is stopped is gone on with by the next. Returns the gap as data, None when it was stopped.
    Raises UserError for a trial that is not there or has no result, and for inputs that are no longer the same;
    StudyFailedError for a failure of the repetition.
    """
    config = searched(find_study(path)).config
    record = next((each for each in load_history(config) if each.number == number), None)
    if record is None:
        raise UserError(f"the trial to reproduce must be one of study {config.study!r}, but it has no trial {number}")
    before = TrialFolder(record.folder)
    spec, result = _finished(before, number)
    own = _own_folder(config, record.folder.name)
    again = TrialFolder(own / "trial")
    again.prepare(spec)
    moved = config.model_copy(update={"folder": str(own)})
    write_folder(moved)
    if (seen := read_json(config.study_folder / SEEN_FILE)) is not None:
        write_json(own / SEEN_FILE, seen)
    console.print(f"Reproducing trial {number}: {record.title}", markup=False, soft_wrap=True)
    repetition = Repetition(moved, spec, result, again, ProgressDisplay(console))
    if not repetition.run((launch or local_launch(config.engine.ranks))(own, 0), record.title):
        console.print("Stopped; the same command goes on from the checkpoint.")
        return None
    gap = _gap(number, record.title, before, again)
    console.print(gap.sentence, soft_wrap=True)
    return {**asdict(gap), "version": __version__}


def _finished(folder: TrialFolder, number: int) -> tuple[TrialSpec, Mapping[str, Any]]:
    """Spec and result of a trial; UserError when one is missing or damaged."""
    try:
        spec, result = TrialSpec.model_validate_json((folder.path / "spec.json").read_bytes()), folder.result
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"trial {number} must have spec.json and result.json, but {reason}; run the study") from None
    if result is None:
        raise UserError(f"trial {number} must be finished, but {folder.path} holds no result.json; run the study on")
    return spec, result


def _own_folder(config: StudyConfig, name: str) -> Path:
    """The first folder without a result: a stopped repetition is gone on with, a finished one is kept."""
    names = (config.study_folder / "reproduced" / f"{name}-{count}" for count in itertools.count(1))
    return next(folder for folder in names if not (folder / "trial" / "result.json").exists())


class Repetition:
    """One trial in one engine, without a queue."""

    def __init__(
        self,
        config: StudyConfig,
        spec: TrialSpec,
        result: Mapping[str, Any],
        folder: TrialFolder,
        listener: ProgressDisplay,
    ) -> None:
        self._config, self._spec, self._then, self._folder = config, spec, result, folder
        self._listener = listener
        self._done = self._stopped = False
        self._last_sign = time.monotonic()

    def run(self, engine: RunningEngine, title: str) -> bool:
        """Whether the trial came to its end; False when it was stopped by a signal."""
        steps, place = self._spec.training.steps, str(self._folder.path)
        self._emit(StudyStarted(self._config.study, place, 1, 0, {}))
        self._emit(TrialStarted(0, title, {}, place, 1, steps))
        try:
            with StopSignals() as signals:
                while not (self._done or self._stopped):
                    self._listen(engine, signals)
        finally:
            if not self._done:
                engine.kill()
            engine.close()
            self._emit(StudyEnded("finished" if self._done else "stopped", {}))
            self._listener.close()
        return self._done

    def _listen(self, engine: RunningEngine, signals: StopSignals) -> None:
        sources: list[StopSignals | RunningEngine] = [signals, engine]
        readable, _, _ = select.select(sources, [], [], POLL_SECONDS)
        if signals in readable:
            signals.drain()
            engine.send({"type": "stop", "number": 0})
            self._stopped = signals.count > 1
        dead = engine.dead  # asked first: whatever it said before is still in the pipe
        for message in engine.receive():
            self._last_sign = time.monotonic()
            getattr(self, f"_on_{message['type']}")(message, engine)
        if dead and not (self._done or self._stopped):
            kind, reason = engine.cause_of_death()
            if kind != "stopped":
                raise StudyFailedError(f"{reason}\n{engine.log_tail()}")
            self._stopped = True
        if time.monotonic() - self._last_sign > 60 * self._config.limits.silence_minutes:
            raise StudyFailedError(f"the engine was silent for {self._config.limits.silence_minutes:g} minutes")

    def _on_ready(self, message: Message, engine: RunningEngine) -> None:
        found, expected = message["fingerprints"], self._spec.fingerprints
        changed = [name for name, known in expected.items() if name in found and found[name] != known]
        if changed:
            raise UserError(
                f"a trial can only be reproduced from the inputs it had, but {', '.join(sorted(changed))} changed "
                "since; put the files back as they were"
            )
        engine.send(
            {
                "type": "run",
                "number": 0,
                "folder": str(self._folder.path),
                "spec": self._spec.model_dump(mode="json"),
                "micro_batch": self._then.get("micro_batch", self._spec.training.micro_batch),
                "race": None,  # the whole evaluation: what a race left out then is not compared
            }
        )

    def _on_step(self, message: Message, engine: RunningEngine) -> None:
        self._emit(StepDone(0, message["step"], message["steps"], message["metrics"]))

    def _on_problems(self, message: Message, engine: RunningEngine) -> None:
        self._emit(ProblemsDone(0, message["step"], message["done"], message["total"]))

    def _on_rung(self, message: Message, engine: RunningEngine) -> None:
        """End where the trial ended then."""
        self._emit(RungScored(0, message["step"], message["score"], message["standard_error"], final=False))
        prune = self._then.get("state") == "pruned" and message["step"] == self._then.get("steps")
        engine.send({"type": "decision", "number": 0, "step": message["step"], "prune": prune, "pause": False})

    def _on_result(self, message: Message, engine: RunningEngine) -> None:
        self._done = True
        self._emit(TrialEnded(0, message["result"]["state"], message["result"], None))

    def _on_stopped(self, message: Message, engine: RunningEngine) -> None:
        self._stopped = True

    def _on_signalled(self, message: Message, engine: RunningEngine) -> None:
        """The engine was told to stop; it says so when it has."""

    def _on_failed(self, message: Message, engine: RunningEngine) -> None:
        failure = Failure.model_validate(message["failure"])
        if failure.kind == "user":
            raise UserError(failure.message, field=failure.field)
        raise StudyFailedError(f"{failure.message}\n{failure.traceback}".rstrip())

    def _emit(self, event: Event) -> None:
        self._listener.on_event(event)


def _gap(number: int, title: str, before: TrialFolder, again: TrialFolder) -> Gap:
    then, now = last_sheet(before.path), last_sheet(again.path)
    answers = {(answer.problem, answer.sample): answer for answer in then.answers}
    pairs = [(answers[key], each) for each in now.answers if (key := (each.problem, each.sample)) in answers]
    compared = paired(now.scores, then.scores, f"reproduce {number}")
    return Gap(
        trial=number,
        title=title,
        folder=str(again.path),
        items=len(pairs),
        then=_share([old.correct for old, _ in pairs]),
        now=_share([new.correct for _, new in pairs]),
        verdicts_differ=sum(old.verdict != new.verdict for old, new in pairs),
        completions_differ=sum(old.completion != new.completion for old, new in pairs),
        interval=(compared.low, compared.high) if compared is not None else None,
    )


def _share(correct: list[bool]) -> float:
    return sum(correct) / len(correct) if correct else 0.0
