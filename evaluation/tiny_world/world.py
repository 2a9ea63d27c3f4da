"""The world of the quickstart: small enough for minutes on a CPU, and made so that the target of fine-tuning matters.

A tiny Llama is pretrained on clean two-digit sums with working. Its demonstrations show a new answer format, and a
share of their digits is wrong. The teacher is the same base after a glimpse of clean solutions in the new format.

Why neither end of the space wins here. The demonstrations are right about the format and often wrong about digits, the
base is right about digits and ignorant of the format, the teacher is unsure of both.

- γ = 1 (SFT) learns the format and the errors: after a wrong digit in the prefix, the working is worth nothing.
- γ = p with a student residual (DFT) never learns the format: its first new token has p ≈ 0, so no gradient.
- γ = 0 (distillation) can be no better than its teacher.
- γ = p with a teacher in the residual (Target-SFT) gets the format from the teacher alone, and this teacher was stopped
  before it gives the new marks much mass. With a better one Target-SFT is as good as anything: nothing is left to find.
- γ = p^α with α < 1 keeps enough trust in an unlikely label to learn the format, which is the same in every
  demonstration, and distrusts a digit that contradicts what the model knows. The residual, part student and part
  teacher, says what should have stood there; where the two agree, their product is sharper than either.

    python -m qtarget.evaluation.tiny_world.world FOLDER [--seed N]      prints its progress as JSON lines
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ...spaces.identity import content_id, derive_seed
from ...spaces.settings import GrownSettings
from ...trainers.loop.sft import StepReport
from ...trainers.settings import TrainingSettings
from ..problems.load import Problem
from ..scoring.evaluate import evaluate
from ..settings import EvaluationSettings, TaskSettings
from .models import character_tokenizer, learn, new_model, save, solved
from .study import study_text
from .sums import Sum, corrupt, new_solution, plain_solution, problem_sums, question, training_sums

FORMAT = 2
MANIFEST = "world.json"
PROBLEMS = "problems.jsonl"
DEMONSTRATIONS = "demonstrations.jsonl"

OnProgress = Callable[[str, int, int], None]
"""Called with phase, steps done and steps in all."""


class WorldSettings(GrownSettings):
    """The size of the world. The defaults are those of the quickstart; tests build smaller ones."""

    width: Annotated[int, Field(ge=8, multiple_of=8)] = 96
    """Hidden size."""
    layers: Annotated[int, Field(ge=1)] = 3
    pretraining_steps: Annotated[int, Field(ge=1)] = 450
    """Optimiser steps on clean sums, 64 sequences each."""
    demonstrations: Annotated[int, Field(ge=1)] = 3200
    noise: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the demonstrations' digits that are replaced by random ones."""
    teacher_score: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The teacher's lessons end when it answers this share of training sums in the new format."""
    teacher_steps: Annotated[int, Field(ge=2)] = 80
    """Most optimiser steps of those lessons, 32 sequences each."""
    familiar: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the base's sums that are written in the format of the demonstrations: above 0 it is not new."""

    LATER: ClassVar[frozenset[str]] = frozenset({"familiar"})


def build(
    folder: Path, seed: int, on_progress: OnProgress | None = None, settings: WorldSettings | None = None
) -> Path:
    """Write the world of `seed` to `folder` and return its study file; a finished world is used as it is.

    The manifest is written last and names seed, settings and versions, so a torn or another world is built afresh.
    Equal seeds give equal files on one machine. Existing runs beside the study are left alone.
    """
    settings = settings or WorldSettings()
    study = folder / "study.yaml"
    key = _key(seed, settings)
    if _is_built(folder, key) and study.is_file():
        return study
    _clear(folder)
    lessons = _World(folder, seed, settings, on_progress or (lambda phase, done, total: None)).write()
    study.write_text(study_text(seed), "utf-8")
    manifest = {"key": key, "seed": seed, "settings": settings.model_dump(), "lessons": lessons}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return study


def _key(seed: int, settings: WorldSettings) -> str:
    return content_id({"format": FORMAT, "seed": seed, "settings": settings.model_dump(), "torch": torch.__version__})


def _is_built(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / MANIFEST).read_text("utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(folder: Path) -> None:
    """Remove what an earlier or torn build left, manifest first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in ("base", "teacher"):
        shutil.rmtree(folder / name, ignore_errors=True)


class _World:
    """One build."""

    def __init__(self, folder: Path, seed: int, settings: WorldSettings, on_progress: OnProgress) -> None:
        self._folder, self._seed, self._settings, self._report = folder, seed, settings, on_progress
        self._tokenizer: PreTrainedTokenizerFast = character_tokenizer()
        self._sums = training_sums()
        self._styles = random.Random(derive_seed("styles", seed))

    def write(self) -> dict[str, float]:
        """Texts first (they take no time), then base and teacher; returns the teacher's score by step."""
        _write_rows(self._folder / PROBLEMS, ("question", "answer"), _answers(problem_sums()))
        _write_rows(self._folder / DEMONSTRATIONS, ("prompt", "completion"), self._noisy_pairs())
        base = self._base()
        save(base, self._tokenizer, self._folder / "base")
        scores = self._teach(base)
        save(base, self._tokenizer, self._folder / "teacher")
        return {str(step): score for step, score in scores.items()}

    def _noisy_pairs(self) -> list[tuple[str, str]]:
        generator = random.Random(derive_seed("tiny world demonstrations", self._seed))
        drawn = generator.choices(self._sums, k=self._settings.demonstrations)
        return [(question(each), corrupt(new_solution(each), self._settings.noise, generator)) for each in drawn]

    def _base(self) -> LlamaForCausalLM:
        model = new_model(self._tokenizer, self._settings.width, self._settings.layers, self._seed)
        recipe = _recipe(self._settings.pretraining_steps, batch=64, learning_rate=3e-3)
        pairs = [(question(each), self._known_solution(each)) for each in self._draw("base", recipe)]
        clean = solved(self._tokenizer, pairs)
        learn(model, clean, recipe, self._seed, self._pretrained)
        return model

    def _known_solution(self, each: Sum) -> str:
        """What the base learns to write for a sum."""
        familiar = self._settings.familiar
        return (
            new_solution(each) if familiar and self._styles.random() < familiar else plain_solution(each, self._styles)
        )

    def _draw(self, purpose: str, recipe: TrainingSettings) -> list[Sum]:
        """As many different sums as a run can see."""
        wanted = recipe.steps * recipe.effective_batch
        return random.Random(derive_seed(purpose, self._seed)).sample(self._sums, k=min(len(self._sums), wanted))

    def _pretrained(self, report: StepReport) -> bool:
        self._report("pretraining", report.step, report.steps)
        return False

    def _teach(self, model: LlamaForCausalLM) -> dict[int, float]:
        """Lessons in place, on clean solutions in the new format, until the wanted score.

        The length is no number of steps, because how fast a base picks up the format varies between seeds.
        """
        recipe = _recipe(self._settings.teacher_steps, batch=32, learning_rate=1e-3, decay="constant")
        lessons = self._draw("lessons", recipe)
        data = solved(self._tokenizer, [(question(each), new_solution(each)) for each in lessons])
        exam = _Exam(self._tokenizer, random.Random(derive_seed("exam", self._seed)).sample(self._sums, k=128))

        scores: dict[int, float] = {}

        def graduates(report: StepReport) -> bool:
            if report.step % 2 == 0:
                scores[report.step] = exam.score(model)
            done = scores.get(report.step, 0) >= self._settings.teacher_score
            self._report("teacher", report.steps if done else report.step, report.steps)
            return done

        learn(model, data, recipe, derive_seed("lessons", self._seed), graduates)
        return scores


class _Exam:
    """Greedy exact match on training sums, in the new format."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, sums: Sequence[Sum]) -> None:
        self._tokenizer = tokenizer
        self._problems = [_problem(each) for each in sums]
        self._settings = EvaluationSettings(
            tasks=(TaskSettings(path=PROBLEMS),), max_new_tokens=32, batch_size=len(sums)
        )

    def score(self, model: LlamaForCausalLM) -> float:
        return evaluate(model, self._tokenizer, self._problems, self._settings, seed=0).score


def _problem(each: Sum) -> Problem:
    text = question(each)
    return Problem(id=text, task="exam", question_hash=text, prompt=text, gold=str(sum(each)), kind="exact")


def _recipe(steps: int, *, batch: int, learning_rate: float, decay: str = "cosine") -> TrainingSettings:
    content = {"steps": steps, "effective_batch": batch, "micro_batch": batch, "learning_rate": learning_rate}
    return TrainingSettings.model_validate({**content, "decay": decay})


def _answers(sums: Sequence[Sum]) -> list[tuple[str, str]]:
    return [(question(each), str(sum(each))) for each in sums]


def _write_rows(path: Path, columns: tuple[str, str], rows: Sequence[tuple[str, str]]) -> None:
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _print_progress(phase: str, done: int, total: int) -> None:
    print(json.dumps({"type": "progress", "phase": phase, "done": done, "total": total}), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the world of the quickstart.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", default="{}", help="JSON with the fields of WorldSettings that differ")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(min(2, torch.get_num_threads()))  # matrices this small gain nothing from more
    settings = WorldSettings.model_validate_json(arguments.settings)
    build(arguments.folder, arguments.seed, _print_progress, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
