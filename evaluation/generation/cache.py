"""Keys and values of a running batch: grown in blocks, rebuilt when sequences leave or join, and branched where rows go
on from what others have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64
"""Columns added at a time. transformers' own cache copies everything at every token."""


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers' __init_subclass__
    """Keys and values (batch, heads, columns, head_dim) of one layer, views of buffers with free columns at the end."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new columns and return all of them."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, end)
        assert self._buffers is not None
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def reset(self) -> None:
        """Let go of the memory."""
        self._buffers = self.keys = self.values = None
        self.is_initialized = False  # transformers before 5.24 would fill the tensors with zeros and keep them
        super().reset()

    def _grow(self, key_states: Tensor, value_states: Tensor, columns: int) -> None:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        room = _ROOM if columns > key_states.shape[-2] else 0
        buffers = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            batch, heads, _, width = new.shape
            buffer = new.new_empty(batch, heads, columns + room, width)
            if old is not None and old.numel():
                buffer[:, :, : old.shape[-2]] = old
            buffers.append(buffer)
        self._buffers = (buffers[0], buffers[1])

    def replace(self, keys: Tensor, values: Tensor, columns: int) -> None:
        """Take `keys` and `values` as buffers, of which the first `columns` are filled."""
        self._buffers = (keys, values)
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]


def new_cache() -> Cache:
    """An empty cache. Every layer keeps all columns; a sliding window is the mask's affair, which the model makes."""
    return Cache(layer_class_to_replicate=BufferedLayer)


Part = tuple[Cache, Sequence[int], int]
"""A cache, the rows to take from it (repeats allowed), and how many leading columns none of them uses."""


def rebuild(parts: Sequence[Part]) -> Cache:
    """One cache from parts of others, which are emptied.

    The last columns are aligned. Columns that a row does not have are zero (any finite value would do: the mask hides
    them). Layers are moved one at a time, so that the peak is one layer above the sum.
    """
    result = new_cache()
    columns = max(cache.get_seq_length() - cut for cache, _, cut in parts)
    for index in range(len(parts[0][0].layers)):
        result.layers.append(_join([(cache.layers[index], list(rows), cut) for cache, rows, cut in parts], columns))
    return result


def branch(cache: Cache, rows: Sequence[int], columns: Tensor, room: int) -> Cache:
    """A cache of N rows that takes from the given row of `cache` its `columns` (N, K), with `room` free ones behind."""
    result, chosen = new_cache(), torch.tensor(rows, device=columns.device)[:, None]
    layers: Sequence[Any] = cache.layers
    for layer in layers:
        branched = BufferedLayer()  # type: ignore[no-untyped-call]
        buffers = []
        for old in (layer.keys, layer.values):
            buffer = old.new_empty(len(rows), old.shape[1], columns.shape[1] + room, old.shape[3])
            buffer[:, :, : columns.shape[1]] = old[chosen, :, columns].transpose(1, 2)
            buffers.append(buffer)
        branched.lazy_initialization(layer.keys, layer.values)
        branched.replace(buffers[0], buffers[1], columns.shape[1])
        result.layers.append(branched)
    return result


def _join(parts: list[tuple[Any, list[int], int]], columns: int) -> BufferedLayer:
    """One layer with `columns` filled columns from parts of (layer, rows, leading columns to drop)."""
    joined = BufferedLayer()  # type: ignore[no-untyped-call]
    rows = sum(len(chosen) for _, chosen, _ in parts)
    buffers = []
    first = parts[0][0]
    for name in ("keys", "values"):
        like = getattr(first, name)
        buffer = like.new_zeros(rows, like.shape[1], columns + _ROOM, like.shape[3])
        start = 0
        for layer, chosen, cut in parts:
            source = getattr(layer, name)[:, :, cut:]
            where = torch.tensor(chosen, device=source.device)
            buffer[start : start + len(chosen), :, columns - source.shape[2] : columns] = source[where]
            start += len(chosen)
        buffers.append(buffer)
    joined.lazy_initialization(first.keys, first.values)
    joined.replace(buffers[0], buffers[1], columns)
    for layer, _, _ in parts:
        layer.reset()
    return joined
