"""Checkpoints a killed trial resumes from: one safetensors file, complete or absent.

It holds master weights, AdamW's state, and whatever else the next step reads, by name. Randomness needs no state: every
step draws from a seed derived from its number.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..spaces.errors import UserError
from ..spaces.identity import content_id
from ..spaces.target import TargetSpec
from .demonstrations import Demonstrations
from .settings import TrainingSettings

FILE = "state.safetensors"
FORMAT = "1"
WEIGHT = "weight/"
"""Prefix of the trainable weights among a checkpoint's tensors."""
NOT_IDENTITY = {"micro_batch", "checkpoint_every"}
"""Settings that change how a run is computed, not what it computes: a checkpoint outlives a change of these."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training run between two optimiser steps."""

    run: str
    """Identity of the run: target, settings, data and seed."""
    step: int
    """Optimiser steps done."""
    tokens: int
    """Tokens with a loss seen so far."""
    seconds: float
    """Time spent in steps so far."""
    tensors: Mapping[str, Tensor]


def run_identity(data: Demonstrations, target: TargetSpec, settings: TrainingSettings, seed: int) -> str:
    """What a checkpoint must match to be continued: equal identities train the same weights from the same start."""
    return content_id(
        {
            "target": target.model_dump(mode="json"),
            "training": settings.model_dump(mode="json", exclude=NOT_IDENTITY),
            "data": data.fingerprint,
            "seed": seed,
        }
    )


def checkpoint_file(folder: Path) -> Path:
    """Where the checkpoint of a trial lies."""
    return folder / "checkpoint" / FILE


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write to a temporary name, flush to disk, rename: a reader finds the old checkpoint or the whole new one."""
    path = checkpoint_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{FILE}.part")
    metadata = {
        "format": FORMAT,
        "run": checkpoint.run,
        "step": str(checkpoint.step),
        "tokens": str(checkpoint.tokens),
        "seconds": repr(checkpoint.seconds),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    try:
        save_file(tensors, partial, metadata)
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # a full disk must not stay full of half a checkpoint
    _flush(path.parent)


def load_checkpoint(folder: Path, run: str) -> Checkpoint | None:
    """The checkpoint of `run`, tensors on the CPU; None when there is none yet.

    Raises UserError when the folder holds the checkpoint of another run. A file that cannot be read is set aside with a
    warning: the run then starts over, which costs time and nothing else.
    """
    path = checkpoint_file(folder)
    path.with_name(f"{FILE}.part").unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        damaged = path.with_name(f"{FILE}.damaged")
        logger.warning("checkpoint %s cannot be read (%s); set aside as %s, starting over", path, error, damaged.name)
        path.replace(damaged)
        return None
    if metadata.get("format") != FORMAT or metadata.get("run") != run:
        raise UserError(
            f"the checkpoint in {path.parent} must belong to this run ({run[:12]}), but it is of run "
            f"{metadata.get('run', '?')[:12]}: target, settings, data or seed differ; "
            "train in another folder, or remove it"
        )
    return Checkpoint(run, int(metadata["step"]), int(metadata["tokens"]), float(metadata["seconds"]), tensors)


def load_weights(model: nn.Module, file: Path) -> None:
    """Put the trained weights of a checkpoint into `model`, cast to its precision; the others stay as they are.

    Raises UserError for a file that cannot be read or belongs to a model with other parameters.
    """
    parameters = dict(model.named_parameters())
    try:
        with safe_open(file, framework="pt") as opened, torch.no_grad():
            names = [key for key in opened.keys() if key.startswith(WEIGHT)]  # noqa: SIM118  # not a dict
            for key in names:
                parameters[key.removeprefix(WEIGHT)].copy_(opened.get_tensor(key))
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint must hold weights of this model, but {file} does not ({error}); train it again"
        ) from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
