"""Run by torchrun on two gloo ranks, an export in PYTHONPATH: the patched forward pass under DDP, FSDP 1 and FSDP 2.

Each rank takes every second sequence; summed over ranks, the gradients must be those of one process. Rank 0 prints, for
each wrapper, the largest relative difference over all parameters. Neither qtarget nor the Trainer takes part.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from target_data import base_folder, collate, demonstrations
from target_loss import IGNORE_INDEX
from target_model import load_model, load_tokenizer
from target_trainer import Request, _next, put_loss_inside, states
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

FOLDER = Path(sys.argv[1])
WINNER = yaml.safe_load((FOLDER / "winner.yaml").read_text("utf-8"))
BASE = base_folder(WINNER, FOLDER)


def gradients(model: nn.Module, rows: list[dict[str, Any]], tokens: int, factor: float) -> dict[str, Tensor]:
    """Of factor · loss/tokens, from these sequences, by the names of the bare model."""
    batch = collate(rows)
    labels = _next(batch["labels"], IGNORE_INDEX)
    with torch.no_grad():
        teacher = states(TEACHER, batch["input_ids"])
    numbers = torch.arange(len(rows))[:, None].expand(batch["input_ids"].shape).flatten()
    loss, _ = model(input_ids=batch["input_ids"], target=Request(labels, teacher=teacher, sequence_ids=numbers))
    (factor * loss / tokens).backward()
    gather = isinstance(model, FullyShardedDataParallel)
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True) if gather else nullcontext():
        named = [(name, parameter.grad) for name, parameter in model.named_parameters()]
        return {bare(name): whole(grad) for name, grad in named if grad is not None}


def whole(gradient: Any) -> Tensor:
    result: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
    return result


def bare(name: str) -> str:
    return name.replace("module.", "").replace("_fsdp_wrapped_", "")


def student() -> Any:
    model = load_model(WINNER["model"], BASE)
    put_loss_inside(model)
    return model


def wrapped(kind: str) -> nn.Module:
    model = student()
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp1":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    heads = [model.lm_head] if kind == "fsdp2, head alone" else []  # as accelerate does around adapters
    for layer in (*model.model.layers, *heads):
        fully_shard(layer)
    fully_shard(model)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # gloo knows no mean
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    return model


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    data = demonstrations(WINNER["data"], load_tokenizer(WINNER["model"], BASE), BASE)
    rows = [data[index] for index in range(6)]
    tokens = sum(label != IGNORE_INDEX for row in rows for label in row["labels"][1:])
    expected = gradients(student(), rows, tokens, 1.0)
    report: dict[str, float] = {}
    for kind in ("ddp", "fsdp1", "fsdp2", "fsdp2, head alone"):
        factor = 1.0 if kind.startswith("fsdp2") else float(ranks)  # the others average over ranks
        found = gradients(wrapped(kind), rows[rank::ranks], tokens, factor)
        assert found.keys() == expected.keys(), (found.keys(), expected.keys())
        report[kind] = max(float((found[key] - one).abs().max() / one.abs().max()) for key, one in expected.items())
    assert "qtarget" not in sys.modules
    if rank == 0:
        print(json.dumps(report))
    dist.destroy_process_group()


TEACHER = load_model(WINNER["teacher"], BASE).eval().requires_grad_(False)
if __name__ == "__main__":
    main()
