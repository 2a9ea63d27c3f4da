"""Run by torchrun on two gloo ranks: the fused loss inside a model that DDP, FSDP 1 or FSDP 2 wraps.

Each rank takes every second sequence and divides its summed loss by the tokens of all ranks, so the summed gradients
must be those of one process. Rank 0 prints, for each wrapper, the largest relative difference over all parameters, and
how often FSDP 2 gathers weights when the loss takes one chunk and when it takes many.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

from qtarget.spaces import presets
from qtarget.trainers.loss import HiddenHead, LossSum, fused_target_loss

VOCAB, WIDTH, SEQUENCES, LENGTH = 53, 16, 6, 7
SPEC = presets.get("target_sft")


class Model(nn.Module):
    """Embedding, two layers and a head tied to the embedding; the loss is part of the forward pass."""

    def __init__(self, chunk_rows: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.max_chunk_bytes = chunk_rows * 20 * 4 * VOCAB  # at most 20 (rows, vocab) tensors of the dense fallback
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, inputs: Tensor, labels: Tensor, teacher: HiddenHead) -> LossSum:
        hidden = self.layers(self.embedding(inputs)).flatten(0, 1)
        return fused_target_loss(
            hidden, self.head.weight, labels.flatten(), SPEC, teacher=teacher, max_chunk_bytes=self.max_chunk_bytes
        )


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and labels (sequences, positions); a teacher's states (sequences, positions, width) and head."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(VOCAB, (SEQUENCES, LENGTH), generator=generator)
    labels = torch.randint(VOCAB, (SEQUENCES, LENGTH), generator=generator)
    labels[0, :4] = labels[3] = -100
    states = torch.randn(SEQUENCES, LENGTH, WIDTH, generator=generator)
    return inputs, labels, states, torch.randn(VOCAB, WIDTH, generator=generator)


def gradients(model: nn.Module, share: slice, factor: float, *, collect: bool = True) -> dict[str, Tensor]:
    """Of factor · loss/tokens of the whole batch, from the sequences in `share`, by the names of the bare model."""
    inputs, labels, states, weight = data()
    teacher = HiddenHead(states[share].flatten(0, 1), weight)
    loss = model(inputs[share], labels[share], teacher).loss_sum
    (factor * loss / (labels != -100).sum()).backward()
    if not collect:
        return {}
    gather = isinstance(model, FullyShardedDataParallel)
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True) if gather else nullcontext():
        return {_bare(name): whole(parameter.grad) for name, parameter in model.named_parameters()}


def whole(gradient: Any) -> Tensor:
    result: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
    return result


def _bare(name: str) -> str:
    return name.removeprefix("module.").removeprefix("_fsdp_wrapped_module.")


def wrapped(kind: str, chunk_rows: int = 2) -> nn.Module:
    model = Model(chunk_rows)
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp1":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    for layer in (model.layers[0], model.layers[2]):
        fully_shard(layer)
    fully_shard(model)
    return model


def gathers(chunk_rows: int, share: slice) -> int:
    """All-gathers of one forward and backward pass under FSDP 2."""
    model = wrapped("fsdp2", chunk_rows)
    with CommDebugMode() as counter:
        gradients(model, share, 1.0, collect=False)
    return sum(
        number for name, number in counter.get_comm_counts().items() if "allgather" in str(name).replace("_", "")
    )


def refusal(model: nn.Module) -> str:
    """What the loss says to a head that FSDP 2 has sharded, outside the forward pass that would gather it."""
    try:
        fused_target_loss(
            torch.zeros(1, WIDTH), model.head.weight, torch.zeros(1, dtype=torch.long), presets.get("sft")
        )
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    expected = gradients(Model(), slice(None), 1.0)
    report: dict[str, Any] = {"refusal": refusal(wrapped("fsdp2"))}
    for kind in ("ddp", "fsdp1", "fsdp2"):
        # The wrappers average over ranks, so each rank's share counts `ranks` times.
        found = gradients(wrapped(kind), slice(rank, None, ranks), float(ranks))
        assert found.keys() == expected.keys(), (found.keys(), expected.keys())
        report[kind] = max(float((found[key] - one).abs().max() / one.abs().max()) for key, one in expected.items())
    share = slice(rank, None, ranks)
    report["gathers"] = {"one chunk": gathers(1000, share), "many chunks": gathers(1, share)}
    if rank == 0:
        print(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
