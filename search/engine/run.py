"""One trial inside the engine: train, score on the way at the rungs, score at the end, write the result last."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...evaluation.generation.backends import Backend
from ...evaluation.problems.load import Problem
from ...evaluation.scoring.evaluate import Evaluation, OnBlock, Race, evaluate
from ...evaluation.statistics.racing import RaceDecision, racer
from ...spaces.identity import derive_seed
from ...trainers.loop.look import Look
from ...trainers.loop.sft import StepReport, TrainingOutcome, train
from ..study.trial import TrialFolder, TrialSpec
from .channel import Channel, Message
from .inputs import Engine

BLOCK = 32
"""Problems between two reports of an evaluation without racing."""


class Run:
    """A trial from its command to its result, or to a stop that keeps the checkpoint."""

    def __init__(self, engine: Engine, channel: Channel, command: Message) -> None:
        self._engine, self._channel = engine, channel
        self._number: int = command["number"]
        self._spec = TrialSpec.model_validate(command["spec"])
        self._folder = TrialFolder(command["folder"])
        self._problems = engine.problems[self._spec.split]
        self._rungs = {rung.step: rung for rung in self._spec.rungs}
        self._settings = self._spec.training.model_copy(update={"micro_batch": command["micro_batch"]})
        self._model = engine.resident.fresh(self._settings.lora, seed=self._spec.seed)
        self._passed = frozenset(command.get("passed", ()))
        self._pruned: Evaluation | None = None
        self._paused = False
        self._first_step: int | None = None
        self._rung_seconds = 0.0
        self._opponents: Message | None = command.get("race")
        self._decision: RaceDecision | None = None

    def finish(self) -> None:
        """Train, score and write the result, unless asked to stop on the way."""
        if not self._prepare():
            self._channel.send("stopped", number=self._number, step=0)
            return
        outcome = self._train()
        if self._paused:
            self._channel.send("paused", number=self._number, step=outcome.step)
            return
        if self._pruned is not None:
            self._conclude("pruned", outcome, self._pruned)
            return
        evaluation = None
        if outcome.status == "finished":
            evaluation = self._evaluate(self._problems, outcome.step, self._folder.items, self._race())
        through, retention = evaluation is not None, None
        if evaluation is not None and not evaluation.stopped:
            through, retention = self._retention(outcome.step)
        if evaluation is None or not through:
            self._channel.send("stopped", number=self._number, step=outcome.step)
        else:
            self._conclude("pruned" if evaluation.stopped else "complete", outcome, evaluation, retention)

    def _prepare(self) -> bool:
        """What scoring needs before the first trial; False when stopped."""
        return self._engine.scoring.prepare(self._model, self._on_block(0))

    def _backend(self) -> Backend:
        return self._engine.scoring.backend(self._model)

    def _retention(self, step: int) -> tuple[bool, Message | None]:
        """(whether it went through, what the model kept)."""
        items = self._folder.path / "retention.jsonl"
        return self._engine.scoring.retention(self._model, items, self._on_block(step))

    def _race(self) -> Race | None:
        """Ends the last evaluation when the best trial so far can no longer be beaten."""
        racing, opponents = self._spec.evaluation.racing, self._opponents
        if racing is None or opponents is None:
            return None

        def note(decision: RaceDecision) -> None:
            self._decision = decision

        return racer(opponents["incumbent"], racing, reference=opponents["reference"], on_decision=note)

    def _raced(self) -> Message | None:
        """What the race came to, and against which trial; None where there was none."""
        if self._decision is None or self._opponents is None:
            return None
        return {"against": self._opponents["number"], **dataclasses.asdict(self._decision)}

    def _train(self) -> TrainingOutcome:
        engine, target = self._engine, self._spec.target
        resident = engine.resident
        return train(
            self._model,
            engine.data,
            target,
            self._settings,
            seed=self._spec.seed,
            folder=self._folder.path,
            **engine.sources(target),
            on_step=self._on_step,
            looks=self._looks(),
            pad_token_id=resident.pad_token_id,
            real_vocab=resident.real_vocab,
        )

    def _looks(self) -> list[Look]:
        rungs = (rung for step, rung in self._rungs.items() if step not in self._passed)
        return [Look(rung.step, rung.decay_steps, self._on_rung) for rung in rungs]

    def _on_step(self, report: StepReport) -> bool:
        """Report the step; True stops the training there."""
        self._record(report)
        return self._channel.stop.is_set()

    def _on_rung(self, step: int) -> bool:
        """Score the model at a rung; True ends the training there, for good or for a while."""
        problems = self._problems[: self._rungs[step].problems]
        evaluation = self._evaluate(problems, step, self._folder.rung_items(step))
        if evaluation is None:
            return True
        word = self._word(step, evaluation)
        self._pruned, self._paused = evaluation if word["prune"] else None, word["pause"]
        self._rung_seconds += 0.0 if word["prune"] else evaluation.seconds  # of its last evaluation there is a field
        return word["prune"] or word["pause"] or self._channel.stop.is_set()

    def _record(self, report: StepReport) -> None:
        metrics = dataclasses.asdict(report)
        step, steps = metrics.pop("step"), metrics.pop("steps")
        if self._first_step is None:
            self._first_step = step
            self._folder.cut_metrics(step)
        with self._folder.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._channel.send("step", number=self._number, step=step, steps=steps, metrics=metrics)

    def _word(self, step: int, evaluation: Evaluation) -> Message:
        """The supervisor's word on a trial at a rung: whether it is pruned, whether it pauses."""
        self._channel.send(
            "rung", number=self._number, step=step, score=evaluation.score, standard_error=evaluation.standard_error
        )
        return self._channel.decision(self._number, step)

    def _evaluate(
        self, problems: Sequence[Problem], step: int, items: Path, race: Race | None = None
    ) -> Evaluation | None:
        """Score the model as it is; None when asked to stop, with the items so far kept."""
        racing = self._spec.evaluation.racing
        evaluation = evaluate(
            self._model,
            self._engine.tokenizer,
            problems,
            self._spec.evaluation,
            seed=derive_seed("evaluation", self._spec.seed),
            items_path=items,
            on_block=self._on_block(step),
            race=race,
            block=racing.block if racing is not None else BLOCK,
            growth=racing.growth if racing is not None else 1.0,
            backend=self._backend(),
        )
        return None if evaluation.stopped and self._channel.stop.is_set() else evaluation

    def _on_block(self, step: int) -> OnBlock:
        """Reports problems answered at a step, and passes a stop on."""

        def report(done: int, total: int) -> bool:
            self._channel.send("problems", number=self._number, step=step, done=done, total=total)
            return self._channel.stop.is_set()

        return report

    def _conclude(
        self,
        state: Literal["complete", "pruned"],
        outcome: TrainingOutcome,
        evaluation: Evaluation,
        retention: Message | None = None,
    ) -> None:
        result = {
            "id": self._spec.id,
            "state": state,
            "score": evaluation.score,
            "standard_error": evaluation.standard_error,
            "num_problems": evaluation.num_problems,
            "samples": evaluation.samples,
            "verdicts": evaluation.verdicts,
            "first_error": evaluation.first_error,
            "tasks": {name: task.model_dump() for name, task in evaluation.tasks.items()},
            "item_scores": evaluation.item_scores,
            "steps": outcome.step,
            "training_tokens": outcome.tokens,
            "training_seconds": outcome.seconds,
            "evaluation_seconds": evaluation.seconds,
            "rung_seconds": self._rung_seconds,
            "generated_tokens": evaluation.tokens,
            "micro_batch": self._settings.micro_batch,
            "race": self._raced(),
            "backend": self._engine.scoring.described_backend()["used"],
            "retention": retention,
        }
        self._folder.write_result(result)
        self._channel.send("result", number=self._number, result=result)
