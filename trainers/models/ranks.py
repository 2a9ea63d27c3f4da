"""Weights spread over the ranks that train one model together (FSDP): each holds a share of every layer.

A layer's weights are gathered for its forward and its backward pass, and its gradients leave each rank the sum of its
share. The output head, which the loss reads outside the decoder, stays whole on every rank, and with it an embedding
that is tied to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ...spaces.errors import UserError
from .head import base_model, decoder_of


def shard(model: nn.Module, device: torch.device) -> None:
    """Spread the decoder of a causal language model over all ranks, in place; the rest of it moves to `device`.

    Weights may still be in host memory: a layer at a time passes through the device. Every rank must hold the same
    ones, and adapters are attached afterwards. Raises UserError for a model whose layers transformers does not name.
    """
    causal, decoder = base_model(model), decoder_of(model)
    names = set(getattr(causal, "_no_split_modules", None) or ())
    layers = [module for module in decoder.modules() if type(module).__name__ in names]
    if not layers:
        raise UserError(
            f"a sharded model must name its layers (`_no_split_modules`), but {type(causal).__name__} does not; "
            "use `strategy: ddp`",
            field="engine.strategy",
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    head = set(causal.get_output_embeddings().parameters())
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in (*layers, decoder):
        # always reshard, the root too: a forward pass must never see weights gathered before an update
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=head, reshard_after_forward=True)
        # each rank's loss is divided by the tokens of all ranks, so gradients add up; gloo knows no other way to scale
        module.set_force_sum_reduction_for_comms(True)
        module.set_gradient_divide_factor(1.0)
    model.to(device)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds a share of it only."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The share of this rank, in the same memory; a tensor that is not sharded is its own share."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor that ranks hold shares of, on the CPU of rank 0, empty elsewhere; all ranks must ask."""
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else full.new_empty(0, device="cpu")


def spread(share: Tensor, like: Tensor) -> Tensor:
    """The tensor whose shares the ranks hold as they hold `like`; nothing moves."""
    assert isinstance(like, DTensor)
    return DTensor.from_local(
        share.detach(), like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a tensor: spread already, or whole on every rank and to be spread as `like` is."""
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    assert isinstance(like, DTensor)
    on_device = tensor.to(like.device)
    return local(distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None))


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Every rank holds all weights inside, and its forward passes need no other rank; nothing for other models."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)
