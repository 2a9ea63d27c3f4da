"""The head that turns hidden states into logits, chunk by chunk, and the gradients that come back through it.

    z = cap(logit_scale·(hidden·weightᵀ + bias)),   cap(z) = softcap·tanh(z/softcap)

Gemma caps, Granite and Cohere scale; everything here is exact for all of them.
Letters: R rows of one chunk, T tokens, H width, V vocabulary, C entries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LOWEST_LOGIT = -1e30
"""Stands for minus infinity where 0·z must stay 0; exp(LOWEST_LOGIT - lse) is exactly 0."""
KEPT_BYTES = 2**26
"""What a thread keeps between calls on a CPU, at most."""
BLOCK_ENTRIES = 2**19
"""Entries of a half-precision product that a CPU works out at a time, about; at least `BLOCK_COLUMNS` of them a row."""
BLOCK_COLUMNS = 256
SUMMED_ROWS = 256
"""Rows of a half-precision head that a CPU widens and adds up at a time, while they are in its cache."""
LARGEST_LEARNT = 2**25 - 2**13
"""Bytes of the largest block that glibc adjusts to (DEFAULT_MMAP_THRESHOLD_MAX), less what it adds."""
PAGE_BYTES, LINE_BYTES, LONG_ROW_PAGES = 4096, 64, 16


@dataclass(frozen=True, eq=False)
class Head:
    """weight (V, H) in the dtype of the hidden states and bias (V,), both detached."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    logit_scale: float
    real_vocab: int
    """Rows from here on are padding."""

    @classmethod
    def build(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        softcap: float | None,
        logit_scale: float,
        dtype: torch.dtype,
        real_vocab: int | None = None,
    ) -> Head:
        """The head in `dtype`, cut off from autograd; a weight in another dtype is converted as autocast does."""
        real = weight.shape[0] if real_vocab is None else real_vocab
        return cls(weight.detach().to(dtype), None if bias is None else bias.detach(), softcap, logit_scale, real)

    @property
    def vocab(self) -> int:
        return self.weight.shape[0]

    def linear(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """logit_scale·(hidden·weightᵀ + bias), shape (R, V), float32 or float64: the logits before the cap."""
        scaled = hidden if self.logit_scale == 1.0 else hidden * self.logit_scale
        logits = multiply(scaled, self.weight.T, out)
        if self.bias is None:
            return logits
        bias = self.bias.to(logits.dtype).clamp(min=LOWEST_LOGIT)
        return logits.add_(bias, alpha=self.logit_scale)

    def logits(self, hidden: Tensor) -> Tensor:
        """z, shape (R, V), float32 or float64."""
        return self.cap_(self.linear(hidden))

    def cap_(self, linear: Tensor) -> Tensor:
        if self.softcap is None:
            return linear
        return linear.div_(self.softcap).tanh_().mul_(self.softcap)

    def cap_slope(self, logits: Tensor) -> Tensor:
        """d cap / d(linear logits) at capped logits z: 1 - (z/softcap)²."""
        assert self.softcap is not None
        return (logits / self.softcap).square_().neg_().add_(1.0)

    @cached_property
    def weight_sum(self) -> Tensor:
        """Sum of the real rows, shape (H,), in the compute dtype."""
        rows, dtype = self.weight[: self.real_vocab], compute_dtype(self.weight.dtype)
        if rows.is_cuda or rows.dtype == dtype:
            return rows.sum(0, dtype=dtype)
        return _widened_sum(rows, dtype)

    def mean_logit(self, hidden: Tensor) -> Tensor:
        """Mean over the real entries of the logits of a head without a cap, shape (R,): one dot product a row."""
        total = hidden.to(self.weight_sum.dtype) @ self.weight_sum
        if self.bias is not None:
            total = total + self.bias[: self.real_vocab].sum(dtype=total.dtype)
        return total * (self.logit_scale / self.real_vocab)


@dataclass(frozen=True, eq=False)
class Tail:
    """What one pass leaves of a chunk of logits."""

    shape: Tensor  # (R, V) t·(slope of the logit cap), 0 at the entries
    top: Tensor  # (R, C) logits of the entries
    log_mass: Tensor  # (R,) logsumexp of the logits outside the entries
    mean: Tensor  # (R,) Σ t·z over the tail
    highest: Tensor  # (R,) the largest logit outside the entries


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What rows of logits are kept in: float64 for float64 hidden states, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _widened_sum(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of (V, H) over V in `dtype`, shape (H,). torch's own would widen all rows into fresh memory first."""
    blocks = torch.split(rows, SUMMED_ROWS)
    widened = rows.new_empty((SUMMED_ROWS, rows.shape[1]), dtype=dtype)
    sums = rows.new_empty((len(blocks), rows.shape[1]), dtype=dtype)
    for block, total in zip(blocks, sums, strict=True):
        torch.sum(widened[: len(block)].copy_(block), 0, out=total)
    return sums.sum(0)


def multiply(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left·right in the compute dtype. CPU has no bf16 GEMM with a float32 result: there each product rounds once."""
    dtype = compute_dtype(left.dtype)
    if out is None:
        out = left.new_empty((left.shape[0], right.shape[1]), dtype=dtype)
    if left.dtype == dtype:
        return torch.mm(left, right, out=out)
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=dtype, out=out)
    for rows, columns, part in _blocks(left, right, out):
        part.copy_(torch.mm(rows, columns))
    return out


def multiply_add(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """total += left·right with `total` in the compute dtype, whatever the dtype of the factors."""
    if left.dtype == total.dtype:
        return total.addmm_(left, right)
    if left.is_cuda:
        return torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    for rows, columns, part in _blocks(left, right, total):
        part.add_(torch.mm(rows, columns))
    return total


def _blocks(left: Tensor, right: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A product cut along its vocabulary, so that each half-precision result is still in the cache when it is used."""
    size = max(BLOCK_COLUMNS, BLOCK_ENTRIES // max(1, min(out.shape)))
    if out.shape[0] > out.shape[1]:
        for rows, part in zip(torch.split(left, size), torch.split(out, size), strict=True):
            yield rows, right, part
    else:
        for columns, part in zip(torch.split(right, size, 1), torch.split(out, size, 1), strict=True):
            yield left, columns, part


def padded(vocab: int, itemsize: int) -> int:
    """Entries from one row of logits to the next, so that long rows do not fall into the same places of a CPU's caches.

    Vocabularies are multiples of large powers of two, and GEMMs walk down columns: rows an odd number of pages and one
    line apart share neither lines nor page entries (32,768 columns: a fifth less time in each GEMM).
    """
    pages = vocab * itemsize // PAGE_BYTES
    if pages < LONG_ROW_PAGES:
        return vocab
    return ((pages + 1) // 2 * 2 + 1) * PAGE_BYTES // itemsize + LINE_BYTES // itemsize


class Workspace(threading.local):
    """Memory for the logits of a chunk. On a CPU a thread keeps it: fresh memory is paid for page by page, which takes
    as long as all passes over the logits together; a GPU's allocator keeps its own.
    """

    def __init__(self) -> None:
        self._kept: Tensor | None = None
        self._has_learnt = False

    def _learn(self) -> None:
        """Show glibc that blocks as large as these are freed and asked for again: it then keeps some for that.

        It takes the size of the largest block freed so far, 32 MiB at most, as a sign of what to keep, twice that;
        otherwise the tensors of a few rows come from the system anew, page by page. A block that nothing is written
        to costs next to nothing.
        """
        if not self._has_learnt:
            self._has_learnt = True
            torch.empty(LARGEST_LEARNT, dtype=torch.uint8)

    def take(self, rows: int, vocab: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(rows, vocab), not cleared; the next call on this thread may write over it."""
        if device.type != "cpu":
            return torch.empty(rows, vocab, dtype=dtype, device=device)
        self._learn()
        width = padded(vocab, dtype.itemsize)
        if rows * width * dtype.itemsize > KEPT_BYTES:
            return torch.empty(rows, width, dtype=dtype)[:, :vocab]
        if self._kept is None or self._kept.dtype != dtype or self._kept.numel() < rows * width:
            with torch.inference_mode(False):  # kept for calls outside that mode too
                self._kept = torch.empty(rows * width, dtype=dtype)
        return self._kept[: rows * width].view(rows, width)[:, :vocab]

    def release(self) -> None:
        """Give the memory back."""
        self._kept = None


WORKSPACE = Workspace()
