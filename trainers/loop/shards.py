"""Checkpoints of a model that is spread over ranks: each writes its own shares, a manifest last makes them one.

PyTorch's distributed checkpoint writes and reads the shares as safetensors files (nothing is pickled), for any other
number of ranks too. A folder `step-NNNNNN` is complete or not there: it is written as `step-NNNNNN.part`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ...spaces.errors import UserError
from ..paths import flush

MANIFEST = "manifest.json"
FILE_BYTES = 2**30
"""A rank writes files of about so many bytes: DCP holds one of them in host memory at a time."""
Room = Callable[[str, tuple[int, ...], torch.dtype], Tensor]
"""Makes the tensor that one of a checkpoint is read into, from its name, shape and dtype; a DTensor reads its share."""


def save_shards(folder: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint as `folder`, which must not exist. All ranks call it, with the same names.

    Shares of DTensors are written by the ranks that hold them, other tensors by one rank.

    Raises what the first rank that failed raised, on all ranks; UserError when ranks do not share the folder.
    """
    main, partial = PartialState().is_main_process, folder.with_name(f"{folder.name}.part")
    if main:
        shutil.rmtree(partial, ignore_errors=True)
    PartialState().wait_for_everyone()
    try:
        with _first_failure():
            save(
                dict(tensors),
                storage_writer=HuggingFaceStorageWriter(
                    str(partial), fqn_to_index_mapping=_files(tensors), save_distributed=True
                ),
            )
        files = _seen_by_all(partial)
        if main:
            shapes = {name: {"shape": list(t.shape), "dtype": str(t.dtype)[6:]} for name, t in tensors.items()}
            text = json.dumps({**header, "ranks": dist.get_world_size(), "files": files, "tensors": shapes})
            (partial / MANIFEST).write_text(text, encoding="utf-8")
            for path in (partial / MANIFEST, partial):
                flush(path)
            partial.rename(folder)
            flush(folder.parent)
    finally:
        if main:  # a full disk must not stay full of half a checkpoint
            shutil.rmtree(partial, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What describes a checkpoint; raises OSError, ValueError or SafetensorError where a file is missing or damaged."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    for name in manifest["files"]:
        with safe_open(folder / name, framework="pt"):  # reads the header, which knows the length
            pass
    return manifest


def load_shards(folder: Path, room: Room, prefix: str = "") -> dict[str, Tensor]:
    """Tensors whose names start with `prefix`, each read into what `room` makes for it.

    Raises what the first rank that failed raised, on all ranks; without a process group this process reads alone.
    """
    described = json.loads((folder / MANIFEST).read_text("utf-8"))["tensors"]
    tensors = {
        name: room(name, tuple(each["shape"]), getattr(torch, each["dtype"]))
        for name, each in described.items()
        if name.startswith(prefix)
    }
    with _first_failure(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is, and that is fine
        load(
            dict(tensors),
            storage_reader=HuggingFaceStorageReader(str(folder)),
            no_dist=not dist.is_initialized(),
        )
    return tensors


def plain(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Room for a whole tensor in host memory."""
    return torch.empty(shape, dtype=dtype)


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of the file (from 1) for each tensor, so that none of this rank is much above FILE_BYTES."""
    files, number, size = {}, 1, 0
    for name, tensor in tensors.items():
        share = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if size and size + share.nbytes > FILE_BYTES:
            number, size = number + 1, 0
        files[name], size = number, size + share.nbytes
    return files


def _seen_by_all(folder: Path) -> list[str]:
    """Names of the files of all ranks, once rank 0 sees what each rank says that it has written."""
    written = gather_object([path.name for path in folder.glob(f"shard-{dist.get_rank() + 1:05d}-*")])
    missing = [sorted(name for name in written if not (folder / name).exists())]
    broadcast_object_list(missing)
    if missing[0]:
        raise UserError(
            f"all ranks must see the same folder, but {folder} lacks {missing[0][0]} on the first; put the output on a "
            "file system that all hosts share"
        )
    return sorted(written)


@contextmanager
def _first_failure() -> Iterator[None]:
    """DCP gathers the failures of all ranks in a BaseException; what went wrong first says more."""
    try:
        yield
    except CheckpointException as error:
        rank, (failure, _) = min(error.failures.items())
        failure.add_note(f"on rank {rank}")
        raise failure from error
