"""One pass over a chunk of logits that serves every target: the softmax of the tail.

Take the entries T of each row (the label and, with a cached teacher, its top-k) out of the row. What is left, the
tail, is needed only as a shape t(v) = π(v)/π_tail, a mass and a mean logit: any target that gives the tail the
student's shape has dL/dz(v) = w·(ΣQ·π_tail − Q_tail)·t(v) there. The row scale multiplies hidden states after the
GEMMs, so the pass does not need to know the target, and masses like 1 − p(y) never suffer from cancellation.

Letters: R rows of a chunk, C entries, V vocabulary.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from .head import LOWEST_LOGIT, Head, Tail

BLOCK_BYTES = 2**21
"""Logits that plain torch takes through all its passes at once: few enough to stay, with a copy, in the cache."""


HAS_TRITON = find_spec("triton") is not None
"""It comes with torch's CUDA wheels for Linux; where it is missing, plain torch does the pass on a GPU too."""


def has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the Triton kernel takes logits of this kind here."""
    return HAS_TRITON and device.type == "cuda" and dtype == torch.float32


def tail_softmax(linear: Tensor, ids: Tensor, head: Head) -> Tail:
    """Overwrites `linear` (R, V), the logits before the cap, with the shape. `ids` (R, C)."""
    if has_kernel(linear.device, linear.dtype):
        from .row_kernel import tail_softmax_kernel

        return tail_softmax_kernel(linear, ids, head)
    return tail_softmax_torch(linear, ids, head)


def cached_rows(linear: Tensor) -> int:
    """How many rows of logits (R, V) to take through many passes at once: all of them on a GPU."""
    return len(linear) if linear.is_cuda else max(1, BLOCK_BYTES // (linear.shape[1] * linear.element_size()))


def tail_softmax_torch(linear: Tensor, ids: Tensor, head: Head) -> Tail:
    """The pass in plain torch, the reference of the kernel: a few rows at a time, so that they stay in the cache."""
    rows = cached_rows(linear)
    spare = torch.empty_like(linear[:rows])
    blocks = [
        _block_(*block, head, spare) for block in zip(torch.split(linear, rows), torch.split(ids, rows), strict=True)
    ]
    top, log_mass, mean, highest = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Tail(linear, top, log_mass, mean, highest)


def _block_(logits: Tensor, ids: Tensor, head: Head, spare: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Entries, log-mass, mean and largest logit of some rows, which their tail's shape overwrites."""
    head.cap_(logits)
    top = logits.gather(1, ids)
    logits.scatter_(1, ids, LOWEST_LOGIT)
    highest = logits.amax(1)
    shape = spare[: len(logits)].copy_(logits)  # softmax itself would copy rows that do not follow each other
    torch.softmax(shape, 1, out=shape)
    log_mass = highest - shape.amax(1).log()
    if head.softcap is None:
        mean = logits.mul_(shape).sum(1)
        logits.copy_(shape)
        return top, log_mass, mean, highest
    logits.scatter_(1, ids, 0.0)
    mean = (logits * shape).sum(1)
    torch.mul(shape, head.cap_slope(logits), out=logits)
    return top, log_mass, mean, highest
