"""What `qtarget train` computes: one winner trained in full, on one device or on all ranks of a launcher.

Started once, or once a rank by torchrun or `accelerate launch`. FSDP follows accelerate's configuration.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ...evaluation.problems.load import Problem, load_problems
from ...evaluation.problems.mismatches import all_differences, warnings
from ...evaluation.problems.splits import training_hashes
from ...evaluation.scoring.evaluate import Evaluation, evaluate
from ...spaces.identity import derive_seed
from ...trainers.data.load import load_demonstrations
from ...trainers.loop.full_run import MODEL, FullRun
from ...trainers.loop.resident import ResidentModel, needs_frozen_copy
from ...trainers.loop.sft import StepReport
from ...trainers.settings import ModelSettings
from ...trainers.teachers.cached import CachedModels
from ...trainers.teachers.sources import LabelColumn, Source
from ..study.files import write_atomic, write_json
from ..study.winner_file import WinnerFile, against_search, load_winner
from .channel import Channel
from .helper import Silent
from .inputs import meet, problems_fingerprint, training_prompts

RESULT_FILE = "result.json"
DATE_FILE = "date.txt"
"""What chat templates print as today, in the output's folder."""
PER_PROBLEM = {"item_scores", "problem_ids"}
LONG_WAIT = timedelta(days=7)
"""Ranks wait so long for one that evaluates or saves."""


class Training:
    """A winner with everything it is trained and scored on."""

    def __init__(self, winner: WinnerFile, out: Path, channel: Channel | Silent) -> None:
        self.winner, self.out, self.channel = winner, out, channel
        self.main = PartialState().is_main_process
        needs, live, base = winner.target.needs - winner.in_data, winner.cache is None, winner.base_folder
        self.resident = ResidentModel(
            winner.model,
            base,
            precision=winner.training.precision,
            reference=live and needs_frozen_copy(needs, winner.training.lora),
            teacher=winner.teacher if live and "teacher" in needs else None,
            sharded=os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and PartialState().num_processes > 1,
        )
        self.data = load_demonstrations(winner.data, self.resident.tokenizer, base, day=self._day())
        meet(self.resident, self.data, winner.data, winner.evaluation)
        self.problems = self._problems()
        self.cached: dict[str, Source] = {} if live else self._caches()
        self.notes = against_search(winner, self._fingerprints(), "a full run")
        self.run = FullRun(
            self.resident, self.data, winner.target, winner.training, winner.run,
            model=winner.model, base=base, folder=out, seed=winner.seed, teacher=self._teacher_content(),
        )  # fmt: skip
        if self.main:
            write_atomic(out / DATE_FILE, f"{self.data.style.day}\n")

    def finish(self) -> dict[str, Any]:
        """Train, save, and score the result on the report problems; what came out."""
        steps = self.run.training.steps
        said = {"data": self.data.summary(), "warnings": [*self.notes, *self._warnings()]}
        self.channel.send("started", steps=steps, examples=len(self.data), **said)
        outcome = self.run.finish(
            source=self._source,
            evaluate=self._on_the_way if self.problems["search"] else None,
            on_step=self._on_step,
        )
        result = {
            **asdict(outcome),
            "ranks": PartialState().num_processes,
            "steps": steps,
            "epochs": steps * self._batch / len(self.data),
        }
        if outcome.status == "finished":
            result |= {"model": str(self.out / MODEL), "report": self._report()}
            if self.main:
                write_json(self.out / RESULT_FILE, result)
            if result["report"] is not None:  # each problem's score stays in the file
                result["report"] = {key: each for key, each in result["report"].items() if key not in PER_PROBLEM}
        return result

    @property
    def _batch(self) -> int:
        return self.winner.training.effective_batch

    def _day(self) -> date | None:
        """The study's date; a winner that names none keeps that of its training's first start."""
        kept = self.out / DATE_FILE
        if self.winner.date is None and kept.is_file():
            return date.fromisoformat(kept.read_text("utf-8").strip())
        return self.winner.date

    def _warnings(self) -> list[str]:
        winner = self.winner
        problems = (*self.problems["search"], *self.problems["report"])
        resident = self.resident
        found = all_differences(self.data, problems, winner.evaluation, resident.tokenizer, resident.end_tokens)
        return warnings(self.data, (), winner.training, found)

    def _problems(self) -> dict[str, tuple[Problem, ...]]:
        settings, base = self.winner.evaluation, self.winner.base_folder
        if settings is None:
            return {"search": (), "report": ()}
        seen = training_hashes(training_prompts(self.winner.data, base))
        splits = load_problems(settings, base, self.winner.split_seed, seen, self.data.style)
        self._split = problems_fingerprint(splits)
        return {"search": tuple(splits.search), "report": tuple(splits.report)}

    def _caches(self) -> dict[str, Source]:
        winner = self.winner
        caches = CachedModels(
            self.data, winner.data, self.resident.tokenizer, winner.base_folder,
            settings=winner.cache, precision=winner.training.precision,
        )  # fmt: skip
        roles: dict[str, ModelSettings | None] = {"reference": winner.model, "teacher": winner.teacher}
        return {
            role: caches.open_or_build(model, rows=role in winner.target.needs_rows, device=self.resident.device)
            for role, model in roles.items()
            if model is not None and role in winner.target.needs - winner.in_data
        }

    def _fingerprints(self) -> dict[str, str]:
        """Content of what is read here, as a search names it."""
        found = {"model": self.resident.fingerprint, "data": self.data.fingerprint}
        found |= {} if self.winner.evaluation is None else {"evaluation": self._split}
        teacher = self._teacher_content()
        return found if teacher is None else {**found, "teacher": teacher}

    def _teacher_content(self) -> str | None:
        cached: Any = self.cached.get("teacher")
        return self.resident.teacher_fingerprint if cached is None else cached.cache.manifest.key.id

    def _source(self, role: str) -> Source | None:
        if role not in self.winner.target.needs:
            return None
        if role in self.winner.in_data:
            return LabelColumn()
        if role in self.cached:
            return self.cached[role]
        return self.resident.reference() if role == "reference" else self.resident.teacher

    def _on_step(self, report: StepReport) -> bool:
        metrics = asdict(report)
        self.channel.send("step", step=metrics.pop("step"), steps=metrics.pop("steps"), metrics=metrics)
        return self.channel.stop.is_set()

    def _on_the_way(self, model: Any, step: int) -> float | None:
        found = self._evaluate(model, "search", self.out / "evaluations" / f"step-{step:06d}.jsonl", step)
        return None if found is None else found.score

    def _report(self) -> dict[str, Any] | None:
        """The score on problems that the search has not seen; on the search problems where none were kept."""
        split = "report" if self.problems["report"] else "search"
        if not self.problems[split]:
            return None
        items = self.out / "evaluations" / f"{split}.jsonl"
        found = self._evaluate(self.run.trained, split, items, self.run.training.steps)
        return None if found is None else {"split": split, **found.model_dump(mode="json")}

    def _evaluate(self, model: Any, split: str, items: Path, step: int) -> Evaluation | None:
        """Rank 0 scores, the others wait; all get the score, or None when it was stopped."""
        shared: list[Any] = [None]
        with self.resident.gathered():
            if self.main:
                shared[0] = self._scored(model, split, items, step)
        if PartialState().num_processes > 1:
            torch.distributed.broadcast_object_list(shared, src=0)
        found: Evaluation | None = shared[0]
        return found

    def _scored(self, model: Any, split: str, items: Path, step: int) -> Evaluation | None:
        assert self.winner.evaluation is not None
        items.parent.mkdir(parents=True, exist_ok=True)

        def on_block(done: int, total: int) -> bool:
            self.channel.send("progress", phase=f"{split} problems, step {step}", done=done, total=total)
            return self.channel.stop.is_set()

        seed = derive_seed("evaluation", self.winner.split_seed)
        settings, tokenizer = self.winner.evaluation, self.resident.tokenizer
        found = evaluate(
            model, tokenizer, self.problems[split], settings, seed=seed, items_path=items, on_block=on_block
        )
        if found.stopped:
            return None
        self.channel.send(
            "evaluated", split=split, step=step, score=found.score, standard_error=found.standard_error,
            problems=found.num_problems,
        )  # fmt: skip
        return found


def answer(request: dict[str, Any], channel: Channel | Silent) -> dict[str, Any]:
    """Train the file `request["winner"]`, its top-level keys replaced by `changes`, into the folder `out`."""
    cpu = not torch.cuda.is_available()
    if cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState(cpu=cpu, **({"timeout": LONG_WAIT} if "RANK" in os.environ else {}))
    winner = load_winner(Path(request["winner"]))
    winner = WinnerFile.model_validate({**winner.model_dump(), **request["changes"]})
    return Training(winner, Path(request["out"]), channel).finish()
