"""Run under TRITON_INTERPRET=1: the Triton kernel against the torch pass and, end to end, the fused loss on both.

Prints one JSON object: the largest error of each comparison.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from qtarget.spaces import presets
from qtarget.trainers.loss import CachedSlice, fused_target_loss, row_kernel
from qtarget.trainers.loss import chunks as loss_chunks
from qtarget.trainers.loss.head import Head
from qtarget.trainers.loss.tail_softmax import tail_softmax_torch

ROWS, VOCAB, ENTRIES = 6, 75, 5


def kernel_errors(dtype: torch.dtype, softcap: float | None, block: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(block)
    head = Head.build(torch.zeros(VOCAB, 4, dtype=dtype), softcap=softcap, logit_scale=1.0, dtype=dtype)
    linear = torch.randn(ROWS, VOCAB, generator=generator) * 8
    linear[1] *= 1e4
    ids = torch.stack([torch.randperm(VOCAB, generator=generator)[:ENTRIES] for _ in range(ROWS)])
    ids[0, 3] = ids[0, 0]
    if softcap is not None:
        linear[2, 0] = torch.inf  # a cap makes a number of it
        ids[2] = torch.where(ids[2] == 0, 1, ids[2])
    expected = tail_softmax_torch(linear.clone(), ids, head)
    row_kernel.BLOCK = block
    found = row_kernel.tail_softmax_kernel(linear.clone(), ids, head)
    assert found.shape.dtype == dtype
    names = ("shape", "top", "log_mass", "mean", "highest")
    return {name: _error(getattr(found, name), getattr(expected, name)) for name in names}


def loss_error(preset: str, softcap: float | None) -> float:
    """Largest relative error of value and gradients when the kernel takes the place of the torch pass."""
    generator = torch.Generator().manual_seed(3)
    spec = presets.get(preset)
    hidden, weight = torch.randn(ROWS, 4, generator=generator), torch.randn(VOCAB, 4, generator=generator)
    labels = torch.randint(VOCAB, (ROWS,), generator=generator)
    logprobs = torch.randn(ROWS, VOCAB, generator=generator).log_softmax(1)
    top, ids = logprobs.topk(ENTRIES)
    cached = CachedSlice(ids, top, logprobs.gather(1, labels[:, None])[:, 0])
    sources: dict[str, Any] = {name: cached for name in spec.needs & {"teacher", "reference"}}

    def run() -> list[Tensor]:
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = fused_target_loss(*leaves, labels, spec, softcap=softcap, **sources)
        return [loss.loss_sum.detach(), loss.entropy, loss.p_label, *torch.autograd.grad(loss.loss_sum, leaves)]

    expected = run()
    original = loss_chunks.tail_softmax
    loss_chunks.tail_softmax = row_kernel.tail_softmax_kernel
    try:
        found = run()
    finally:
        loss_chunks.tail_softmax = original
    return max(_error(one, other) for one, other in zip(found, expected, strict=True))


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1))


def main() -> None:
    report = {
        f"{dtype}, softcap {softcap}, block {block}": kernel_errors(dtype, softcap, block)
        for dtype in (torch.float32, torch.bfloat16)
        for softcap in (None, 5.0)
        for block in (16, 128)
    }
    losses = {
        f"{preset}, softcap {softcap}": loss_error(preset, softcap)
        for preset in ("sft", "dft", "label_smoothing", "asft", "kd", "target_sft", "eaft", "trimsft")
        for softcap in (None, 5.0)
    }
    print(json.dumps({"kernel": report, "loss": losses}))


if __name__ == "__main__":
    main()
