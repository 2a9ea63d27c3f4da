"""Causal attention of the sequences of a packed row on a CPU, with a backward pass made of matrix products.

Forward is torch's flash attention for CPUs. Its backward pass in bf16 takes four to five times the time of the five
products it consists of, so those are made here, from the log-sums that the forward pass kept:

    P = exp(scale·Q·Kᵀ − lse),   dS = P ⊙ (dO·Vᵀ − Δ),   Δ = rowsum(dO ⊙ O)
    dV = Pᵀ·dO,   dQ = scale·dS·K,   dK = scale·dSᵀ·Q

(FlashAttention-2, Dao 2023, 2307.08691, algorithm 2.) The subtractions are two more columns of the factors, so that a
product in half precision is rounded after them: where P is large its exponent is small, and keeps its digits.

Letters: G heads that share a key head, K key heads, A = G·K heads, P positions of a row, L of a sequence, D width of a
head, R rows of a block of queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**20
"""Entries of P that are worked out at a time, about: few enough to stay in the cache, with dS."""
ROWS = 16
"""Rows of a product are filled up with zeros to a multiple of this: each new shape makes oneDNN compile a kernel."""
COLUMNS = 2
"""A number in half precision and what is left of it."""


def block_attention(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """(1, A, P, D) and twice (1, K, P, D) → (1, P, A, D), causal in each sequence; differentiable."""
    found: Tensor = _BlockAttention.apply(query, key, value, lengths, scale)  # type: ignore[no-untyped-call]
    return found


def _sequences(lengths: tuple[int, ...]) -> Iterator[slice]:
    start = 0
    for length in lengths:
        yield slice(start, start := start + length)


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
        heads, positions, width = query.shape[1:]
        shared = (key.shape[1], heads // key.shape[1])
        out = query.new_empty(1, positions, heads, width)
        log_sums = query.new_empty(heads, positions, dtype=_exact(query.dtype))
        for inside in _sequences(lengths):
            queries = torch.unflatten(query[0, :, inside], 0, shared)
            keys, values = (rows[0, :, None, inside].expand_as(queries) for rows in (key, value))
            part, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                queries, keys, values, 0.0, True, scale=scale
            )
            torch.unflatten(out[0, inside].transpose(0, 1), 0, shared).copy_(part)
            torch.unflatten(log_sums[:, inside], 0, shared).copy_(sums)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.lengths, ctx.scale = lengths, scale
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        found = tuple(torch.empty_like(each) for each in (query, key, value))
        mean = (gradient.to(log_sums.dtype) * out).sum(-1)[0].T
        for inside in _sequences(ctx.lengths):
            rows = query[0, :, inside], key[0, :, inside], value[0, :, inside], gradient[0, inside].transpose(0, 1)
            sequence = _Sequence.make(*rows, log_sums[:, inside], mean[:, inside], ctx.scale)
            for whole, part in zip(found, sequence.gradients(ctx.scale), strict=True):
                whole[0, :, inside] = part[:, : inside.stop - inside.start]
        return (*found, None, None)


@dataclass(frozen=True, eq=False)
class _Sequence:
    """The factors of one sequence, each with its two more columns and filled up to L' rows."""

    query: Tensor  # (K, G, L', D + 2), scaled, and −lse
    key: Tensor  # (K, L', D + 2), and ones
    value: Tensor  # (K, L', D + 2), and ones
    gradient: Tensor  # (K, G, L', D + 2), and −Δ

    @classmethod
    def make(
        cls, query: Tensor, key: Tensor, value: Tensor, gradient: Tensor, sums: Tensor, mean: Tensor, scale: float
    ) -> _Sequence:
        """Of (A, L, D), twice (K, L, D), (A, L, D) and twice (A, L)."""
        shared = (len(key), len(query) // len(key))
        queries = _extended(query, sums)
        queries[..., : query.shape[-1]] *= scale
        return cls(
            query=torch.unflatten(queries, 0, shared),
            key=_extended(key, None),
            value=_extended(value, None),
            gradient=torch.unflatten(_extended(gradient, mean), 0, shared),
        )

    def gradients(self, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of queries (A, L', D), keys and values (K, L', D)."""
        key_heads, group, length, columns = self.query.shape
        width = columns - COLUMNS
        queries = self.query.new_empty(key_heads, group, length, width)
        keys = values = self.key.new_empty(0)
        rows = -(-max(1, BLOCK_ENTRIES // (key_heads * group * length)) // ROWS) * ROWS
        for start in reversed(range(0, length, rows)):
            stop = min(length, start + rows)
            query, gradient = (each[:, :, start:stop].flatten(1, 2) for each in (self.query, self.gradient))
            probs, slopes = self._block(query, gradient, start, stop)
            found = torch.bmm(slopes, self.key[:, :stop, :width])
            torch.mul(torch.unflatten(found, 1, (group, -1)), scale, out=queries[:, :, start:stop])
            of_values = torch.bmm(probs.transpose(1, 2), gradient[..., :width])
            of_keys = torch.bmm(slopes.transpose(1, 2), query[..., :width])
            if stop < length:
                keys[:, :stop] += of_keys
                values[:, :stop] += of_values
            elif start == 0:
                keys, values = of_keys, of_values
            else:  # the last queries see all keys; a sum wants more digits
                keys, values = of_keys.to(_exact(of_keys.dtype)), of_values.to(_exact(of_values.dtype))
        return queries.flatten(0, 1), keys, values

    def _block(self, query: Tensor, gradient: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """P and dS of queries `start` to `stop`, (K, G·R, `stop`) each: no later key is seen."""
        probs = torch.bmm(query, self.key[:, :stop].transpose(1, 2)).exp_()
        torch.unflatten(probs, 1, (-1, stop - start)).tril_(start)  # what it zeroes may be infinite
        return probs, torch.bmm(gradient, self.value[:, :stop].transpose(1, 2)).mul_(probs)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _extended(rows: Tensor, less: Tensor | None) -> Tensor:
    """(heads, L, D) → (heads, L', D + 2): with −`less` (heads, L) in two numbers, or with ones."""
    heads, length, width = rows.shape
    found = rows.new_empty(heads, -(-length // ROWS) * ROWS, width + COLUMNS)
    found[:, length:] = 0
    inside = found[:, :length]
    inside[..., :width] = rows
    if less is None:
        inside[..., width:] = 1
    else:
        high = less.to(rows.dtype)
        inside[..., width] = -high
        inside[..., width + 1] = high - less
    return found
