"""Rows of tokens read in one forward pass, behind what is known of their beginnings: keys and values of earlier rows.

A system prompt or the examples before every question are read once, and a context once for all of its options. Rows
are left-padded to a common last column, known ones too: the known columns of a row are those of its parent, moved to
where the row has them. All rows then read equally many columns; a shorter row reads some of its known tokens again in
place of padding, so that columns lie as far apart as positions do, which is what a sliding window measures.

Letters: N rows, W columns, M known rows, K known columns of a row, L the last columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ...trainers.models.head import base_model
from ...trainers.models.transformers_versions import cache_argument
from .cache import branch, new_cache

Tokens = tuple[int, ...]

WORTHWHILE = 512
"""Tokens that a common beginning must spare: reading it takes a forward pass of its own."""


@dataclass(frozen=True, eq=False)
class Prefilled:
    """Rows that a model has read."""

    rows: tuple[Tokens, ...]
    cache: Cache  # keys and values (N, heads, W, D) of each layer
    logits: Tensor  # (N, L, V), of the last columns


@torch.no_grad()
def prefill(
    model: Any, rows: Sequence[Tokens], *, last: int = 1, known: Prefilled | None = None, parents: Sequence[int] = ()
) -> Prefilled:
    """Read `rows`; each begins with (or is) the known row whose number `parents` has for it.

    `last`: columns to return logits of, no more than the longest row has.
    """
    device = model.get_input_embeddings().weight.device
    width, own = max(map(len, rows)), _own_columns(rows, last, known, parents)
    first = width - own
    lengths = torch.tensor([len(row) for row in rows], device=device)
    places = torch.arange(width, device=device) - (width - lengths)[:, None]  # < 0: padding
    padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    cache = new_cache()
    if known is not None and first:
        cache = branch(known.cache, list(parents), _columns(known, parents, places[:, :first]), room=own)
    output = model(
        input_ids=padded[:, first:],
        attention_mask=(places >= 0).long(),
        position_ids=places.clamp(min=0)[:, first:],
        use_cache=True,
        **{cache_argument(model): cache},
        **last_logits(model, last),
    )
    return Prefilled(tuple(rows), cache, output.logits[:, -last:])


def last_logits(model: Any, count: int) -> dict[str, int]:
    """What makes a model compute the logits of the last columns alone, if it can."""
    return {"logits_to_keep": count} if base_model(model)._supports_logits_to_keep() else {}


def own_columns(rows: Sequence[Tokens], parents: Sequence[Tokens], last: int) -> int:
    """Columns of each row that are read when a row's parent is known."""
    return max(last, *(len(row) - len(parent) for row, parent in zip(rows, parents, strict=True)))


def common_prefix(rows: Sequence[Tokens], last: int = 1) -> Tokens:
    """What all rows begin with, if it is worth reading by itself; at least `last` columns are left of each."""
    distinct = set(rows)
    if len(distinct) < 2:
        return ()
    low, high = min(distinct), max(distinct)  # of rows in order these two have least in common
    alike = next((place for place, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
    shared = low[: max(0, min(alike, min(map(len, distinct)) - last))]
    return shared if len(shared) * (len(distinct) - 1) >= WORTHWHILE else ()


def _own_columns(rows: Sequence[Tokens], last: int, known: Prefilled | None, parents: Sequence[int]) -> int:
    if known is None:
        return max(map(len, rows))
    return own_columns(rows, [known.rows[parent] for parent in parents], last)


def _columns(known: Prefilled, parents: Sequence[int], places: Tensor) -> Tensor:
    """(N, K) columns of the known rows that hold the tokens at `places`; any column where that is padding."""
    padding = known.cache.get_seq_length() - torch.tensor([len(row) for row in known.rows], device=places.device)
    return (padding[list(parents)][:, None] + places).clamp(min=0)
