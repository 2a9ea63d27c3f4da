"""The pass of `tail_softmax` as one Triton kernel: a program a row, two sweeps over it, in place.

The first sweep keeps the maximum, sum and mean of the tail (online softmax), the second writes the tail's softmax. The
entries have been read before and stand at LOWEST_LOGIT in both. Where hidden states are half precision, so is the
result: it lies in the first half of each row's own memory, and a chunk costs four bytes an entry, not six.

Letters: R rows of a chunk, C entries, V vocabulary.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton compiles the bodies below; annotations other than tl.constexpr mean nothing to it.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .head import LOWEST_LOGIT, Head, Tail

BLOCK = 4096
"""Entries that a program holds at once."""
WARPS = 8


@triton.jit
def _read(pointer, columns, vocab, softcap, LOWEST: tl.constexpr, CAPPED: tl.constexpr):
    z = tl.load(pointer + columns, mask=columns < vocab, other=LOWEST)
    if CAPPED:
        # tanh(|x|) = (1 - e)/(1 + e) with e = exp(-2|x|) never overflows.
        e = tl.exp(-2.0 * tl.abs(z) / softcap)
        z = tl.where(z == LOWEST, LOWEST, tl.where(z < 0, -softcap, softcap) * (1.0 - e) / (1.0 + e))
    return z


@triton.jit
def _tail_kernel(
    logits,  # (R, V) before the cap
    shape,  # (R, V), the same memory read in the dtype of the result
    log_mass,  # (R,)
    mean,  # (R,)
    largest,  # (R,)
    vocab,
    logits_stride,
    shape_stride,
    softcap,
    CAPPED: tl.constexpr,
    LOWEST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    source = logits + row * logits_stride
    target = shape + row * shape_stride
    # Not made from a logit: 0·inf would spoil a row whose cap makes a number of inf.
    highest = tl.full((), LOWEST, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    weighted = tl.full((), 0.0, tl.float32)
    for start in range(0, vocab, BLOCK):
        z = _read(source, start + tl.arange(0, BLOCK), vocab, softcap, LOWEST, CAPPED)
        new = tl.maximum(highest, tl.max(z, 0))
        e = tl.exp(z - new)
        total = total * tl.exp(highest - new) + tl.sum(e, 0)
        weighted = weighted * tl.exp(highest - new) + tl.sum(e * z, 0)
        highest = new
    tl.store(log_mass + row, highest + tl.log(total))
    tl.store(mean + row, weighted / total)
    tl.store(largest + row, highest)
    for start in range(0, vocab, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z = _read(source, columns, vocab, softcap, LOWEST, CAPPED)
        t = tl.exp(z - highest) / total
        if CAPPED:
            share = tl.where(z == LOWEST, 0.0, z / softcap)
            t *= 1.0 - share * share
        # The result may overlap logits of this block that another warp has not read yet.
        tl.debug_barrier()
        tl.store(target + columns, t.to(shape.dtype.element_ty), mask=columns < vocab)


def tail_softmax_kernel(linear: Tensor, ids: Tensor, head: Head) -> Tail:
    """`tail_softmax` in one launch; overwrites `linear` (R, V), the logits before the cap. `ids` (R, C)."""
    rows, vocab = linear.shape
    top = head.cap_(linear.gather(1, ids))
    linear.scatter_(1, ids, LOWEST_LOGIT)
    dtype = head.weight.dtype
    shape = linear.view(dtype)[:, :vocab] if dtype.itemsize < linear.dtype.itemsize else linear
    log_mass, mean, largest = (torch.empty_like(linear[:, 0]) for _ in range(3))
    _tail_kernel[(rows,)](
        linear,
        shape,
        log_mass,
        mean,
        largest,
        vocab,
        linear.stride(0),
        shape.stride(0),
        1.0 if head.softcap is None else head.softcap,
        CAPPED=head.softcap is not None,
        LOWEST=LOWEST_LOGIT,
        BLOCK=min(BLOCK, triton.next_power_of_2(vocab)),
        num_warps=WARPS,
    )
    return Tail(shape, top, log_mass, mean, largest)
