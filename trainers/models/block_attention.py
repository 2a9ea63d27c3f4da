"""Causal attention of the sequences of a packed row on a CPU, with a backward pass made of matrix products.

Forward is torch's flash attention for CPUs. Its backward pass in bf16 takes four to five times the time of the five
products it consists of, so those are made here, from the log-sums that the forward pass kept:

    P = exp(scale·Q·Kᵀ − lse),   dS = P ⊙ (dO·Vᵀ − Δ),   Δ = rowsum(dO ⊙ O)
    dV = Pᵀ·dO,   dQ = scale·dS·K,   dK = scale·dSᵀ·Q

(FlashAttention-2, Dao 2023, 2307.08691, algorithm 2.) The subtractions are two more columns of the factors, so that a
product in half precision is rounded after them: where P is large its exponent is small, and keeps its digits.

Sequences that are about as long as each other are worked out together, as one batch filled up with zeros.

Letters: G heads that share a key head, K key heads, A = G·K heads, B rows of a batch, P positions of a row, L of a
sequence, N sequences worked out together, D width of a head, R rows of a block of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**20
"""Entries of P that are worked out at a time, about: few enough to stay in the cache, with dS."""
ROWS = 16
"""Rows of a product are filled up with zeros to a multiple of this: each new shape makes oneDNN compile a kernel."""
FILLED = 1.5
"""The products of a sequence that is filled up to the length of others may be so many times its own."""
COLUMNS = 2
"""A number in half precision and what is left of it."""


def block_attention(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """(B, A, P, D) and twice (B, K, P, D) → (B, P, A, D), causal in each sequence; differentiable.

    `lengths`: of the sequences of a row; of a batch of more than one row the only one, P.
    """
    found: Tensor = _BlockAttention.apply(query, key, value, lengths, scale)  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True)
class _Run:
    """Neighbours of one length: rows of a batch, or sequences of its only row."""

    inside: slice
    number: int
    length: int

    def of(self, whole: Tensor) -> Tensor:
        """(B, heads, P, ...) → (number, heads, length, ...), in the same memory."""
        if whole.shape[0] > 1:
            return whole[self.inside]
        return torch.unflatten(whole[0, :, self.inside], 1, (self.number, self.length)).transpose(0, 1)


def _runs(rows: int, lengths: Sequence[int], heads: int) -> Iterator[_Run]:
    """All sequences in their order, no more of them in one than fit into the cache."""
    start = 0
    for length, alike in groupby(lengths):
        left, most = len(list(alike)) * rows, max(1, BLOCK_ENTRIES // (heads * length * length))
        for first in range(0, left, most):
            number = min(most, left - first)
            stop = start + number * length
            yield _Run(slice(first, first + number) if rows > 1 else slice(start, stop), number, length)
            start = stop


def _groups(runs: Sequence[_Run], heads: int) -> Iterator[list[_Run]]:
    """Neighbours to work out together: filled up to the longest they still fit, and little is added."""
    group: list[_Run] = []
    for run in runs:
        lengths = [_filled(each.length) for each in [*group, run]]
        entries = sum(each.number for each in [*group, run]) * max(lengths) ** 2
        if group and (max(lengths) ** 2 > FILLED * min(lengths) ** 2 or heads * entries > BLOCK_ENTRIES):
            yield group
            group = []
        group.append(run)
    yield group


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
        rows, heads, positions, width = query.shape
        out = query.new_empty(rows, positions, heads, width)
        log_sums = query.new_empty(rows, heads, positions, dtype=_exact(query.dtype))
        runs = tuple(_runs(rows, lengths, heads))
        for run in runs:
            part, sums = _flash(run.of(query), run.of(key), run.of(value), scale)
            run.of(out.transpose(1, 2)).copy_(part)
            run.of(log_sums).copy_(sums)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.runs, ctx.scale = runs, scale
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        found = tuple(torch.empty_like(each) for each in (query, key, value))
        mean = (gradient.to(log_sums.dtype) * out).sum(-1).transpose(1, 2)
        rows = (query, key, value, gradient.transpose(1, 2), log_sums, mean)
        for group in _groups(ctx.runs, query.shape[1]):
            factors = _Factors.make(ctx.scale, *([run.of(each) for run in group] for each in rows))
            for whole, parts in zip(found, factors.gradients(ctx.scale), strict=True):
                shares = torch.split(torch.unflatten(parts, 0, (-1, whole.shape[1])), [run.number for run in group])
                for run, part in zip(group, shares, strict=True):
                    run.of(whole).copy_(part[:, :, : run.length])
        return (*found, None, None)


def _flash(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(N, A, L, D) and twice (N, K, L, D) → (N, A, L, D) and the log-sums (N, A, L)."""
    number, heads, key_heads = len(query), query.shape[1], key.shape[1]
    if number == 1:  # the heads of a key head as those of a batch: no copies of keys
        query = torch.unflatten(query[0], 0, (key_heads, -1))
        key, value = (rows[0][:, None].expand_as(query) for rows in (key, value))
    elif key_heads < heads:
        key, value = (rows.repeat_interleave(heads // key_heads, 1) for rows in (key, value))
    found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True, scale=scale)
    return found.reshape(number, heads, *found.shape[2:]), sums.reshape(number, heads, -1)


@dataclass(frozen=True, eq=False)
class _Factors:
    """The factors of N sequences, each with its two more columns and filled up to L' rows."""

    query: Tensor  # (N·K, G, L', D + 2), scaled, and −lse
    key: Tensor  # (N·K, L', D + 2), and ones
    value: Tensor  # (N·K, L', D + 2), and ones
    gradient: Tensor  # (N·K, G, L', D + 2), and −Δ

    @classmethod
    def make(
        cls,
        scale: float,
        query: list[Tensor],
        key: list[Tensor],
        value: list[Tensor],
        gradient: list[Tensor],
        sums: list[Tensor],
        mean: list[Tensor],
    ) -> _Factors:
        """An entry a run: (number, A, L, D), twice (number, K, L, D), (number, A, L, D), and twice (number, A, L)."""
        shared = (-1, query[0].shape[1] // key[0].shape[1])
        queries = _extended(query, sums)
        queries[..., : query[0].shape[-1]] *= scale
        return cls(
            query=torch.unflatten(queries, 0, shared),
            key=_extended(key, None),
            value=_extended(value, None),
            gradient=torch.unflatten(_extended(gradient, mean), 0, shared),
        )

    def gradients(self, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of queries (N·A, L', D), keys and values (N·K, L', D)."""
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


def _filled(length: int) -> int:
    return -(-length // ROWS) * ROWS


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _extended(runs: list[Tensor], less: list[Tensor] | None) -> Tensor:
    """(number, heads, L, D) of each run → (N·heads, L', D + 2): with −`less` in two numbers, or with ones."""
    heads, width, longest = runs[0].shape[1], runs[0].shape[-1], max(rows.shape[2] for rows in runs)
    found = runs[0].new_empty(sum(map(len, runs)), heads, _filled(longest), width + COLUMNS)
    for index, (rows, part) in enumerate(zip(runs, torch.split(found, [len(rows) for rows in runs]), strict=True)):
        part[:, :, rows.shape[2] :] = 0
        inside = part[:, :, : rows.shape[2]]
        inside[..., :width] = rows
        if less is None:
            inside[..., width:] = 1
        else:
            high = less[index].to(rows.dtype)
            inside[..., width] = -high
            inside[..., width + 1] = high - less[index]
    return found.flatten(0, 1)
