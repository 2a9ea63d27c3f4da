"""The full run of a winner: one training from start to saved model, resumable, with models kept on the way by rule.

A folder holds `run.json` (what decides the run), `metrics.jsonl`, `scores.jsonl`, `checkpoint/` (to resume from),
`models/step-NNNNNN` (kept by rule) and, written last, `model`: safetensors that any loader of transformers reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import PreTrainedTokenizerBase

from ...spaces.errors import UserError
from ...spaces.target import TargetSpec
from ..data.demonstrations import Demonstrations
from ..models.head import base_model
from ..models.load import load_model
from ..models.merging import merged, say_tied, tied
from ..models.ranks import is_sharded, whole
from ..models.tokens import settle
from ..models.transformers_versions import recompute_activations
from ..run_settings import RunSettings
from ..settings import ModelSettings, TrainingSettings
from ..teachers.sources import Source
from .checkpoint import NOT_IDENTITY
from .packing import pack, prepare_packing
from .resident import ResidentModel
from .sft import StepReport, TrainingOutcome, train

FORMAT = 1
RUN_FILE, METRICS_FILE, SCORES_FILE, MODEL = "run.json", "metrics.jsonl", "scores.jsonl", "model"
Evaluate = Callable[[nn.Module, int], float | None]
"""Scores the model after so many steps; None when it was asked to stop."""
OnStep = Callable[[StepReport], bool]
"""Hears of each step; True stops the run there."""


class FullRun:
    """One training of one model in one folder. All ranks make one each, with the same arguments."""

    def __init__(
        self,
        resident: ResidentModel,
        data: Demonstrations,
        target: TargetSpec,
        training: TrainingSettings,
        run: RunSettings,
        *,
        model: ModelSettings,
        base: Path,
        folder: Path,
        seed: int,
        teacher: str | None = None,
    ) -> None:
        """`teacher`: content of the teacher's weights or cache, where there is one.

        Raises UserError when `folder` holds another run.
        """
        steps = run.num_steps(training.steps, len(data), training.effective_batch)
        self.training = training.model_copy(update={"steps": steps})
        self.resident, self.data, self.target, self.run = resident, data, target, run
        self.settings, self.base, self.folder, self.seed = model, base, folder, seed
        self.main = PartialState().is_main_process
        claim(folder, self.identity(teacher), write=self.main)
        self.scores = read_scores(folder / SCORES_FILE)
        self.trained: nn.Module | None = None
        """The model under training, from `finish` on."""
        self._first: int | None = None

    def identity(self, teacher: str | None) -> dict[str, Any]:
        """What decides the weights that a run ends with."""
        return {
            "format": FORMAT,
            "target": self.target.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude=NOT_IDENTITY),
            "data": self.data.fingerprint,
            "model": self.resident.fingerprint,
            "teacher": teacher,
            "seed": self.seed,
        }

    def finish(
        self,
        *,
        source: Callable[[str], Source | None],
        evaluate: Evaluate | None = None,
        on_step: OnStep | None = None,
    ) -> TrainingOutcome:
        """Train to the end, or to where `on_step` stops; the model is saved at the end.

        `source` gives `reference` and `teacher`; it is asked once the model is ready, since adapters switched off are
        a reference.

        Raises as `train` does.
        """
        model = self.trained = self.resident.fresh(self.training.lora, seed=self.seed)
        if self.run.activation_checkpointing:
            recompute_activations(base_model(model))
        if self.run.packing:
            prepare_packing(base_model(model))

        def after(report: StepReport) -> bool:
            return self._after(report, model, evaluate, on_step)

        outcome = train(
            model,
            self.data,
            self.target,
            self.training,
            seed=self.seed,
            folder=self.folder,
            reference=source("reference"),
            teacher=source("teacher"),
            on_step=after,
            pad_token_id=self.resident.pad_token_id,
            real_vocab=self.resident.real_vocab,
            layout=pack if self.run.packing else None,
        )
        if outcome.status == "finished":
            self._save(model, self.folder / MODEL)
        return outcome

    def _after(self, report: StepReport, model: nn.Module, evaluate: Evaluate | None, on_step: OnStep | None) -> bool:
        self._record(report)
        run, stop = self.run, on_step is not None and on_step(report)
        if evaluate is not None and run.evaluate_every and report.step % run.evaluate_every == 0 and not stop:
            score = evaluate(model, report.step)
            if score is None:
                return True
            self._score(report.step, score)
        if run.save_every and report.step % run.save_every == 0 and report.step < report.steps:
            self._save(model, models_folder(self.folder) / f"step-{report.step:06d}")
            if self.main:
                keep(models_folder(self.folder), run.keep, self.scores)
        return stop

    def _score(self, step: int, score: float) -> None:
        if self.main and step not in self.scores:
            with (self.folder / SCORES_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "score": score}) + "\n")
        self.scores[step] = score

    def _record(self, report: StepReport) -> None:
        """One line a step; what an earlier attempt wrote from here on is replaced."""
        if not self.main:
            return
        path = self.folder / METRICS_FILE
        if self._first is None:
            self._first = report.step
            cut(path, report.step)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    def _save(self, model: nn.Module, folder: Path) -> None:
        """The whole model in `folder`, complete or not there; adapters are merged into a fresh copy of the base."""
        apart = self.training.lora is not None or any(is_sharded(parameter) for parameter in model.parameters())
        plain = self._copy(model) if apart else base_model(model)
        if self.main:
            partial = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            write_model(plain, self._tokenizer(plain), partial, self.run.shard_gigabytes)
            if self.training.lora is not None:
                adapted: Any = model
                added = bool(self.settings.add_tokens)  # rows that the base of the adapter's folder lacks
                adapted.save_pretrained(partial / "adapter", save_embedding_layers=added)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        PartialState().wait_for_everyone()

    def _tokenizer(self, model: Any) -> PreTrainedTokenizerBase:
        """The tokenizer to save with `model`, whose own configuration then ends answers where the training did."""
        resident = self.resident
        tokenizer = settle(model, resident.tokenizer, resident.end_tokens, chat=resident.chat)
        assert isinstance(tokenizer, PreTrainedTokenizerBase)
        return tokenizer

    @torch.no_grad()
    def _copy(self, model: nn.Module) -> Any:
        """The trained weights in a model of their own, in host memory of rank 0; all ranks give their shares.

        One weight is whole on a device at a time. Merging adapters in place and back would round the base.
        """
        copied: Any = None
        if self.main:
            copied = load_model(self.settings, self.base, self.training.precision, self.training.lora, self.seed)
        into = dict(copied.named_parameters()) if self.main else {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                trained = whole(parameter.detach())
                if self.main:
                    into[name].copy_(trained)
        return copied if copied is None or self.training.lora is None else merged(copied)


def write_model(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, shard_gigabytes: float) -> None:
    """Safetensors in shards, configuration and tokenizer."""
    say_tied(model, tied(model))
    model.save_pretrained(folder, max_shard_size=f"{round(shard_gigabytes * 1000)}MB")
    tokenizer.save_pretrained(folder)


def claim(folder: Path, identity: Mapping[str, Any], *, write: bool) -> None:
    """Make `folder` hold this run; raises UserError that names what differs when it holds another one."""
    path = folder / RUN_FILE
    if path.exists():
        held = json.loads(path.read_text("utf-8"))
        differing = list(differences(held, dict(identity)))
        if differing:
            raise UserError(
                f"`--out` must hold this run or none, but {folder} holds one with other {', '.join(differing)}; "
                "give the same again to go on with it, or another folder"
            )
    elif write:
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{RUN_FILE}.part")
        partial.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    PartialState().wait_for_everyone()


def differences(held: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """`key (value there, value now)` for each dotted key whose values differ."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted(held.keys() | wanted.keys()):
            yield from differences(held.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
    elif held != wanted:
        yield f"{path} ({_short(held)} there, {_short(wanted)} now)"


def _short(value: Any) -> str:
    """A value in few characters: of a content hash its beginning tells enough."""
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else f"{text[:12]}..."


def models_folder(folder: Path) -> Path:
    """Where models saved on the way lie."""
    return folder / "models"


def keep(folder: Path, newest: int, scores: Mapping[int, float]) -> list[str]:
    """Remove saved models but the newest ones and the one with the best score; returns what is left."""
    saved = {int(path.name.partition("-")[2]): path for path in folder.glob("step-??????") if path.is_dir()}
    scored = [step for step in saved if step in scores]
    best = {max(scored, key=lambda step: (scores[step], -step))} if scored else set()
    kept = best | set(sorted(saved)[-newest:])
    for step in saved.keys() - kept:
        shutil.rmtree(saved[step])
    return [saved[step].name for step in sorted(kept)]


def read_scores(path: Path) -> dict[int, float]:
    """Scores by step, as an earlier attempt wrote them; a torn last line is left out."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return {each["step"]: each["score"] for each in found}


def cut(path: Path, step: int) -> None:
    """Keep the whole lines of a metrics file from before `step`."""
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
    path.write_text("".join(whole), encoding="utf-8")
