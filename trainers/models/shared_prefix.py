"""Sequences of a packed row that begin alike: their common prefix, a system prompt say, lies in the row once.

In a causal decoder a position depends on those before it alone, so equal beginnings have equal hidden states, and the
gradient of a shared one is the sum over the sequences. Everything but attention works on one position at a time;
attention sees the row spread out, each sequence with a copy of the prefix.

Letters: S sequences, H heads, X positions of the prefix, R of the row, P of all sequences spread out, D width of a
head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class _Places:
    """Positions of a row (X, own parts of the sequences) and of the same row spread out."""

    spread: Tensor  # (P,) in the row
    own: Tensor  # (R - X,) in the spread row
    copies: Tensor  # (S·X,) in the spread row
    kept: Tensor  # (R,) in the spread row: the first copy, and all own parts


@lru_cache(maxsize=8)  # all layers ask for the same, forward and backward
def _places(lengths: tuple[int, ...], prefix: int) -> _Places:
    sizes, shared = torch.tensor(lengths), torch.arange(prefix)
    starts = sizes.cumsum(0) - sizes
    copies = (starts[:, None] + shared).flatten()
    is_own = torch.ones(sum(lengths), dtype=torch.bool)
    is_own[copies] = False
    own = is_own.nonzero().squeeze(1)
    spread = torch.empty(sum(lengths), dtype=torch.long)
    spread[copies] = shared.repeat(len(lengths))
    spread[own] = prefix + torch.arange(len(own))
    return _Places(spread, own, copies, torch.cat([shared, own]))


def spread(rows: Tensor, lengths: tuple[int, ...], prefix: int) -> Tensor:
    """(1, H, R, D) → (1, H, P, D): sequences of `lengths`, each with its copy of the prefix; differentiable."""
    found: Tensor = _Spread.apply(rows, _places(lengths, prefix), prefix)  # type: ignore[no-untyped-call]
    return found


def gathered(rows: Tensor, lengths: tuple[int, ...], prefix: int) -> Tensor:
    """(1, P, H, D) → (1, R, H, D), the inverse: of the equal copies of the prefix the first; differentiable."""
    found: Tensor = _Gathered.apply(rows, _places(lengths, prefix).kept)  # type: ignore[no-untyped-call]
    return found


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: _Places, prefix: int) -> Tensor:
        ctx.places, ctx.prefix = places, prefix
        return _taken(rows, places.spread)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        exact = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        copies = torch.unflatten(_taken(gradient, ctx.places.copies), 2, (-1, ctx.prefix))
        shared = copies.sum(2, dtype=exact).to(gradient.dtype)
        return torch.cat([shared, _taken(gradient, ctx.places.own)], 2), None, None


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, kept: Tensor) -> Tensor:
        ctx.shape, ctx.kept = rows.shape, kept
        return rows.index_select(1, kept)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.new_zeros(ctx.shape).index_copy_(1, ctx.kept, gradient), None


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """Positions of (1, H, positions, D); heads of a position lie together in memory, and are copied together."""
    return rows.transpose(1, 2).index_select(1, places).transpose(1, 2)
