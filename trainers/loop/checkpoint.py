"""Checkpoints a killed run resumes from, complete or absent: one safetensors file, or a folder of ranks' shares.

They hold master weights, AdamW's state, and whatever else the next step reads, by name. Randomness needs no state:
every step draws from a seed derived from its number.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ...spaces.target import TargetSpec
from ..data.demonstrations import Demonstrations
from ..models.ranks import is_sharded
from ..paths import flush
from ..settings import TrainingSettings
from .shards import Room, load_shards, plain, read_manifest, save_shards

FILE = "state.safetensors"
FORMAT = "1"
WEIGHT = "weight/"
"""Prefix of the trainable weights among a checkpoint's tensors."""
NOT_IDENTITY = {"micro_batch", "checkpoint_every"}
"""Settings that change how a run is computed, not what it computes: a checkpoint outlives a change of these."""
UNREADABLE = (SafetensorError, OSError, ValueError, KeyError)

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
    """DTensors of what is spread over ranks."""


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


def checkpoint_bytes(parameters: int) -> int:
    """Of a run that trains so many: master weights and AdamW's two moments, in float32."""
    return parameters * 3 * 4


def checkpoint_file(folder: Path) -> Path:
    """Where the checkpoint of one process lies."""
    return folder / "checkpoint" / FILE


def checkpoint_of(folder: Path) -> Path | None:
    """The newest checkpoint in the folder of a run, a file or a folder of shares, as its name says; or None."""
    found = [path for path in _names(folder / "checkpoint") if path.exists()]
    return found[0] if found else None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint in `folder`; all ranks call it. A reader finds the old one or the whole new one.

    A spread model is written by all ranks (`checkpoint_shards.py`), any other by rank 0. Raises OSError when the disk
    is full; what was there before is there still.
    """
    path = checkpoint_file(folder)
    header = {
        "format": FORMAT,
        "run": checkpoint.run,
        "step": str(checkpoint.step),
        "tokens": str(checkpoint.tokens),
        "seconds": repr(checkpoint.seconds),
    }
    main = PartialState().is_main_process
    if main:
        path.parent.mkdir(parents=True, exist_ok=True)
    if any(is_sharded(tensor) for tensor in checkpoint.tensors.values()):
        path = path.with_name(f"step-{checkpoint.step:06d}")
        save_shards(path, header, checkpoint.tensors)
    elif main:
        _save_file(path, header, checkpoint.tensors)
    if main:
        for old in _names(path.parent):
            if old != path:
                _remove(old)
    PartialState().wait_for_everyone()


def load_checkpoint(folder: Path, run: str, room: Room = plain) -> Checkpoint | None:
    """The checkpoint of `run`, None when there is none yet; all ranks call it. Tensors are on the CPU.

    Those of a folder of shares are where `room` makes them. Raises UserError when the folder holds the checkpoint of
    another run. One that cannot be read is set aside with a warning: the run then starts over, which costs time and
    nothing else.
    """
    while (path := _newest(folder / "checkpoint")) is not None:
        header = _header(path)
        if header.get("format") != FORMAT or header.get("run") != run:
            raise UserError(
                f"the checkpoint in {path.parent} must belong to this run ({run[:12]}), but it is of run "
                f"{header.get('run', '?')[:12]}: target, settings, data or seed differ; "
                "train in another folder, or remove it"
            )
        tensors, fault = _read(path, room)
        faults = [each for each in gather_object([fault]) if each is not None]
        if not faults:
            return Checkpoint(run, int(header["step"]), int(header["tokens"]), float(header["seconds"]), tensors)
        if PartialState().is_main_process:
            _set_aside(path, faults[0])
        PartialState().wait_for_everyone()
    return None


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the trained weights of a checkpoint into `model`, cast to its precision; the others stay as they are.

    `path` as `checkpoint_of` gives it. Raises UserError for one that cannot be read or belongs to a model with other
    parameters.
    """
    parameters = dict(model.named_parameters())
    try:
        stored = load_shards(path, plain, WEIGHT).items() if path.is_dir() else _tensors(path, WEIGHT)
        with torch.no_grad():
            for key, tensor in stored:
                parameters[key.removeprefix(WEIGHT)].copy_(tensor)
    except (*UNREADABLE, RuntimeError) as error:
        raise UserError(
            f"the checkpoint must hold weights of this model, but {path} does not ({error}); train it again"
        ) from None


def _save_file(path: Path, header: dict[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write to a temporary name, flush to disk, rename."""
    partial = path.with_name(f"{path.name}.part")
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, header)
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # a full disk must not stay full of half a checkpoint
    flush(path.parent)


def _names(folder: Path) -> list[Path]:
    """Where complete checkpoints lie, shares first, newest first: there are two only where a removal was cut short."""
    shares = (path for path in folder.glob("step-*") if path.name[5:].isdigit())
    return [*sorted(shares, key=lambda path: int(path.name[5:]), reverse=True), folder / FILE]


def _newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps, the same on all ranks; rank 0 removes what no write has finished."""
    found: list[Path | None] = [None]
    if PartialState().is_main_process:
        for left in folder.glob("*.part"):
            _remove(left)
        steps = {}
        for path in _names(folder):
            try:
                if path.exists():
                    steps[path] = int(_header(path).get("step", 0))
            except UNREADABLE as error:
                _set_aside(path, str(error))
        found[0] = max(steps, key=steps.__getitem__, default=None)
    broadcast_object_list(found)
    return found[0]


def _header(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return read_manifest(path)
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read(path: Path, room: Room) -> tuple[dict[str, Tensor], str | None]:
    """All tensors, or what is wrong with them."""
    try:
        return load_shards(path, room) if path.is_dir() else dict(_tensors(path)), None
    except UNREADABLE as error:
        return {}, str(error)


def _tensors(path: Path, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        yield from ((key, file.get_tensor(key)) for key in file.keys() if key.startswith(prefix))  # noqa: SIM118


def _set_aside(path: Path, fault: str) -> None:
    damaged = path.with_name(f"{path.name}.damaged")
    logger.warning("checkpoint %s cannot be read (%s); set aside as %s, starting over", path, fault, damaged.name)
    _remove(damaged)
    path.replace(damaged)


def _remove(path: Path) -> None:
    """A folder is renamed first: half of one must not look complete."""
    if path.is_dir():
        partial = path.with_name(f"{path.name}.part")
        shutil.rmtree(path.replace(partial) if path.suffix != ".part" else path)
    else:
        path.unlink(missing_ok=True)
