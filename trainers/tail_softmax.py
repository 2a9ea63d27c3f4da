"""One pass over a chunk of logits that serves every target: the softmax of the tail.

Take the entries T of each row (the label and, with a cached teacher, its top-k) out of the row. What is left, the
tail, is needed only as a shape t(v) = π(v)/π_tail, a mass and a mean logit: any target that gives the tail the
student's shape has dL/dz(v) = w·(ΣQ·π_tail − Q_tail)·t(v) there. The row scale multiplies hidden states after the
GEMMs, so the pass does not need to know the target, and masses like 1 − p(y) never suffer from cancellation.

Letters: R rows of a chunk, C entries, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .loss_head import LOWEST_LOGIT, Head


@dataclass(frozen=True, eq=False)
class Tail:
    """What one pass leaves of a chunk of logits."""

    shape: Tensor  # (R, V) t·(slope of the logit cap), 0 at the entries
    top: Tensor  # (R, C) logits of the entries
    log_mass: Tensor  # (R,) logsumexp of the logits outside the entries
    mean: Tensor  # (R,) Σ t·z over the tail


def runs_in_place(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the Triton kernel takes logits of this kind, and so needs no second (R, V) tensor."""
    return device.type == "cuda" and dtype == torch.float32


def tail_softmax(linear: Tensor, ids: Tensor, head: Head, spare: Tensor) -> Tail:
    """Overwrites `linear` (R, V), the logits before the cap. `ids` (R, C); `spare` (R, V) is used unless in place."""
    if runs_in_place(linear.device, linear.dtype):
        from .row_kernel import tail_softmax_kernel

        return tail_softmax_kernel(linear, ids, head)
    return tail_softmax_torch(linear, ids, head, spare)


def tail_softmax_torch(linear: Tensor, ids: Tensor, head: Head, out: Tensor) -> Tail:
    """The pass in plain torch, the reference of the kernel."""
    logits = head.cap_(linear)
    top = logits.gather(1, ids)
    logits.scatter_(1, ids, LOWEST_LOGIT)
    highest = logits.amax(1)
    shape = torch.softmax(logits, 1, out=out)
    log_mass = highest - shape.amax(1).log()
    if head.softcap is not None:
        logits.scatter_(1, ids, 0.0)
        slope = head.cap_slope(logits)
        mean = logits.mul_(shape).sum(1)
        return Tail(shape.mul_(slope), top, log_mass, mean)
    return Tail(shape, top, log_mass, logits.mul_(shape).sum(1))
