"""Score a model on tasks from the command line: load it, draw the problems, evaluate, write the result."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from ...trainers.data.style import Style
from ...trainers.models.load import Precision, load_model, load_tokenizer
from ...trainers.settings import ModelSettings
from ..generation.parity import backend_factory, checked
from ..problems.load import load_problems
from ..settings import EvaluationSettings
from .evaluate import Evaluation, OnBlock, evaluate

ITEMS = "items.jsonl"
RESULT = "evaluation.json"


def run(
    model: ModelSettings | str,
    settings: EvaluationSettings,
    base: Path,
    out: Path | None = None,
    *,
    seed: int = 0,
    exclude: Collection[str] = frozenset(),
    precision: Precision = "fp32",
    on_block: OnBlock | None = None,
    style: Style | None = None,
) -> Evaluation:
    """Evaluate a model folder, hub id or GGUF file on the search problems of `settings.tasks`.

    `style`: how the demonstrations ask that the model has learnt from; default: tasks ask as they say themselves.

    Relative paths start at `base`. `exclude`: content hashes of training prompts, whose problems are left out. With
    `out`, a folder, `items.jsonl` is written as items are decided, and a second
    call carries on from it; `evaluation.json` is written last. An accelerator is used if there is one.

    Raises UserError for a model, a task or a setting that cannot be used.
    """
    source = ModelSettings(path=model) if isinstance(model, str) else model
    problems = load_problems(settings, base, seed, exclude, style).search
    tokenizer = load_tokenizer(source, base)
    network: Any = load_model(source, base, precision, device=_device())
    items = None if out is None else out / ITEMS
    make, greedy = backend_factory(settings.backend, network, tokenizer), settings.temperature == 0
    backend = checked(settings.backend, make, network, tokenizer, problems, greedy).backend(network)
    result = evaluate(
        network, tokenizer, problems, settings, seed=seed, items_path=items, on_block=on_block, backend=backend
    )
    if out is not None:
        _write(out / RESULT, result.model_dump_json(indent=2) + "\n")
    return result


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)  # CUDA builds name one without a GPU
    return torch.device("cpu") if accelerator is None else accelerator


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
