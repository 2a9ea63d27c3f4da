"""Attention of sequences that lie one after the other in a row: each by itself, without padding and without a mask.

Everything else in a decoder works on one position at a time, so a packed row costs no more than its tokens.
Letters: S sequences, A heads, P positions of a row, L of a sequence, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .block_attention import block_attention
from .head import BY_SEQUENCE, decoder_of, evaluating, hidden_states
from .rms_norm import HALF
from .shared_prefix import gathered, spread

KINDS = {"full_attention", "sliding_attention"}
"""Layers whose attention sees what it is given here; others (chunked, linear) look along the row by themselves."""
PROBE = (3, 2)
"""Lengths of the sequences that a model is tried with, by themselves and as what follows a prefix of one."""
_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def attention_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sequence_lengths: tuple[int, ...] | None = None,
    shared_prefix: int = 0,
    **more: Any,
) -> tuple[Tensor, None]:
    """(1, A, P, D) → (1, P, A, D), causal in each sequence of `sequence_lengths`; without these each row is one.

    The first `shared_prefix` positions of the row belong to all sequences, whose lengths count them.
    """
    if shared_prefix and sequence_lengths is not None:
        query, key, value = (spread(each, sequence_lengths, shared_prefix) for each in (query, key, value))
        found, _ = attention_by_sequence(module, query, key, value, attention_mask, sequence_lengths, **more)
        return gathered(found, sequence_lengths, shared_prefix), None
    lengths = sequence_lengths or (query.shape[2],)
    unmasked = sequence_lengths is not None or attention_mask is None
    if unmasked and _is_plain(module, query, key, value, lengths, more):
        scale = more.get("scaling") or query.shape[-1] ** -0.5
        return block_attention(query, key, value, lengths, scale), None
    if sequence_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    parts, start = [], 0
    for length, sequences in groupby(sequence_lengths):
        number = len(list(sequences))
        inside = slice(start, start := start + number * length)
        queries, keys, values = (_apart(rows, inside, number) for rows in (query, key, value))
        mask = _window(length, more.get("sliding_window"), query.device)
        parts.append(sdpa_attention_forward(module, queries, keys, values, mask, **more)[0].flatten(0, 1))
    return torch.cat(parts)[None], None


def _is_plain(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], more: dict[str, Any]
) -> bool:
    """Whether `block_attention` computes it, which pays in half precision: nothing but causality hides a position."""
    causal = more.get("is_causal")
    window = more.get("sliding_window")
    return (
        not more.get("dropout")
        and more.get("position_bias") is None
        and (getattr(module, "is_causal", True) if causal is None else causal)
        and (window is None or max(lengths) <= window)
        and query.shape[2:] == key.shape[2:] == value.shape[2:]
        and query.dtype == key.dtype == value.dtype
        and query.dtype in HALF
    )


def _apart(rows: Tensor, inside: slice, number: int) -> Tensor:
    """Neighbours of one length as a batch, (1, A, P, D) → (S, A, L, D), in the same memory."""
    heads, _, width = rows[0, :, inside].shape
    return rows[0, :, inside].view(heads, number, -1, width).transpose(0, 1)


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(L, L) mask of a layer that sees the last `window` positions, where a sequence is longer than that."""
    if window is None or length <= window:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


AttentionInterface.register(BY_SEQUENCE, attention_by_sequence)
AttentionMaskInterface.register(BY_SEQUENCE, sdpa_mask)


@contextmanager
def by_sequence(models: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, `hidden_states` of packed rows costs these models nothing for padding; they must be `separable`."""
    before: list[tuple[Any, str]] = []
    try:
        for config in (decoder_of(model).config for model in models):
            before.append((config, config._attn_implementation))
            config._attn_implementation = BY_SEQUENCE
        yield
    finally:
        for config, name in reversed(before):  # adapters share the model that they are a reference of
            config._attn_implementation = name


def separable(model: nn.Module) -> bool:
    """Whether sequences in one row leave a model as they do by themselves: its kind of layers, then tried on a few.

    On CPUs alone: for GPUs there is flash attention (`trainers/loop/packing.py`).
    """
    decoder = decoder_of(model)
    kinds = set(getattr(decoder.config, "layer_types", None) or KINDS)
    fits = decoder.config._attn_implementation in ("sdpa", BY_SEQUENCE) and kinds <= KINDS
    if not fits or next(model.parameters()).device.type != "cpu":
        return False
    if decoder not in _TRIED:
        _TRIED[decoder] = _is_separable(model)
    return _TRIED[decoder]


def _is_separable(model: nn.Module) -> bool:
    inputs = torch.arange(1 + sum(PROBE))[None] % decoder_of(model).config.vocab_size
    parts = inputs[:, 1:].split(PROBE, 1)
    places = torch.cat([torch.arange(length) for length in PROBE])[None]
    try:
        with evaluating(model), by_sequence([model]):
            alone = [hidden_states(model, part) for part in parts]
            packed = hidden_states(model, inputs[:, 1:], places, PROBE)
            behind = [hidden_states(model, torch.cat([inputs[:, :1], part], 1)) for part in parts]
            places = torch.cat([places.new_zeros(1, 1), places + 1], 1)
            sharing = hidden_states(model, inputs, places, tuple(1 + length for length in PROBE), 1)
    except (TypeError, ValueError, RuntimeError):  # a model with a forward pass of its own
        return False
    whole = torch.cat([behind[0], *(each[:, 1:] for each in behind[1:])], 1)
    return _alike(packed, torch.cat(alone, 1)) and _alike(sharing, whole)


def _alike(found: Tensor, expected: Tensor) -> bool:
    tolerance = 0.05 if expected.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return bool((found - expected).abs().max() <= tolerance * (1 + expected.abs().max()))
