"""Root-mean-square norms of half-precision models on a CPU, some rows at a time.

Written out in torch a norm is six passes over hidden states, and its backward pass fourteen, each through memory. Here
a few rows go through all of them while they are in the cache. Forward is the same bit for bit; backward keeps float32
where autograd rounds in between.

    y = w ⊙ x̂,  x̂ = x·r,  r = (mean(x²) + ε)^(−1/2)   (Zhang and Sennrich 2019, 1910.07467, equation 4)
    dx = r·(g − x̂·mean(g ⊙ x̂)) with g = w ⊙ dy,   dw = Σ dy ⊙ x̂

Letters: T rows, H width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .ranks import is_sharded

CACHED_ENTRIES = 2**16
"""Entries that go through all passes at once."""
HALF = (torch.bfloat16, torch.float16)


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """y of the hidden states (..., H) and w (H,), in their half precision; differentiable in both."""
    found: Tensor = _RMSNorm.apply(hidden, weight, epsilon)  # type: ignore[no-untyped-call]
    return found


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        out, inverse = torch.empty_like(rows), rows.new_empty(len(rows), 1, dtype=torch.float32)
        for part, result, scale in _blocks(rows, out, inverse):
            wide = part.float()
            torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon, out=scale)
            torch.mul(wide.mul_(scale).to(part.dtype), weight, out=result)
        ctx.save_for_backward(rows, weight, inverse)
        return out.view_as(hidden)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, inverse = ctx.saved_tensors
        wide_weight = weight.float()
        out, total = torch.empty_like(rows), torch.zeros_like(wide_weight)
        for part, slope, result, scale in _blocks(rows, gradient.reshape(rows.shape), out, inverse):
            normed, inner = part.float().mul_(scale), slope.float()
            products = inner * normed
            total += products.sum(0)
            shared = torch.mv(products, wide_weight)[:, None] / rows.shape[1]
            result.copy_(inner.mul_(wide_weight).addcmul_(normed, shared, value=-1).mul_(scale))
        return out.view_as(gradient), total.to(weight.dtype), None


def _blocks(rows: Tensor, *more: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows of each at a time."""
    size = max(1, CACHED_ENTRIES // rows.shape[1])
    return zip(*(torch.split(each, size) for each in (rows, *more)), strict=True)


@contextmanager
def cached_norms(models: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the norms of these models that compute the above, in half precision on a CPU, do so in the cache."""
    changed = [(module, epsilon) for model in models for module in model.modules() if (epsilon := _epsilon(module))]
    for module, epsilon in changed:
        module.forward = partial(_forward, module, epsilon)  # a copy of the model gets one of its own
    try:
        yield
    finally:
        for module, _ in changed:
            module.__dict__.pop("forward", None)  # adapters share the model that they are a reference of


def _forward(module: Any, epsilon: float, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, module.weight, epsilon)


def _epsilon(module: nn.Module) -> float | None:
    """ε of a norm of the form above, found by trying it; else None."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not (type(module).__name__.endswith("RMSNorm") and isinstance(weight, Tensor) and isinstance(epsilon, float)):
        return None
    if weight.ndim != 1 or weight.dtype not in HALF or weight.device.type != "cpu" or is_sharded(weight):
        return None
    if "forward" in module.__dict__:
        return None
    with torch.no_grad():
        tried = torch.linspace(-3, 3, 2 * len(weight)).to(weight.dtype).view(2, -1)
        return epsilon if torch.equal(module(tried), rms_norm(tried, weight, epsilon)) else None
