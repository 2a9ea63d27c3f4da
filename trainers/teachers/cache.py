"""Reading a teacher cache: rows of a micro-batch, straight from memory-mapped shards.

Letters: T tokens, K the most entries that one of them keeps, N demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..loss.residual_source import CachedSlice, LabelOnly
from .format import REBUILD, Array, CacheError, CacheKey, Manifest, ShardArrays, ShardEntry, decode, unpack_ids
from .store import mark_used, missing_message, verify


@dataclass(frozen=True, eq=False)
class _Shard:
    """A mapped shard with its index, 16 bytes a token in memory."""

    arrays: ShardArrays
    token_starts: Array  # (N + 1,) first token of each demonstration
    entry_starts: Array  # (T + 1,) first entry of each token; all 0 where only labels are kept

    @classmethod
    def open(cls, folder: Path, key: CacheKey, entry: ShardEntry) -> _Shard:
        data = np.memmap(folder / entry.name, np.uint8, mode="r").view(np.ndarray)  # plain arrays slice faster
        arrays = decode(key, entry, data)
        return cls(arrays, _starts(arrays.lengths), _starts(arrays.counts))

    def tokens_of(self, examples: Array) -> Array:
        """Numbers of the tokens of some demonstrations, one after the other."""
        lengths = self.arrays.lengths[examples].astype(np.int64)
        tokens: Array = np.repeat(self.token_starts[examples] - _starts(lengths)[:-1], lengths)
        return tokens + np.arange(lengths.sum())


def _starts(lengths: Array) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class _Block:
    """Unpacked rows of T tokens."""

    ids: Array  # (T, K) int64, -1 where unused
    logprobs: Array  # (T, K) float32, -inf where unused
    scalars: Array  # (3, T) float32
    fewest: int
    """Entries that each token has at least."""


class TeacherCache:
    """The distributions of one teacher over one data set, opened for reading.

    >>> cache = TeacherCache.open(cache_folder(default_root(), key), key)   # doctest: +SKIP
    >>> cache.rows([5, 2])    # labelled tokens of demonstrations 5 and 2, in that order   # doctest: +SKIP
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._shards = [_Shard.open(folder, manifest.key, entry) for entry in manifest.shards]
        self._firsts = np.array([entry.first for entry in manifest.shards])

    @classmethod
    def open(cls, folder: Path, key: CacheKey, *, checksums: bool = True) -> TeacherCache:
        """Open a complete cache made for exactly this key.

        Reads every byte once unless `checksums` is False. Raises CacheError for a missing, unfinished, stale or torn
        cache, with the command that rebuilds it.
        """
        if not folder.is_dir():
            raise CacheError(missing_message(folder, key))
        manifest = verify(folder, checksums=checksums)
        if differences := key.differences(manifest.key):
            name = differences[0]
            raise CacheError(
                f"the teacher cache {folder} is stale: it differs in {', '.join(differences)} "
                f"({name} must be {getattr(key, name)}, but is {getattr(manifest.key, name)}); {REBUILD}"
            )
        mark_used(folder)
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self.manifest.examples

    @property
    def has_rows(self) -> bool:
        """Whether distributions are kept, and not labels alone."""
        return self.manifest.key.content == "rows"

    def rows(self, examples: Sequence[int]) -> CachedSlice | LabelOnly:
        """All labelled tokens of some demonstrations, one after the other: T rows.

        Every row is a distribution again after its rounding on disk: kept entries and tail sum to 1. A cache of labels
        gives their log-probabilities.
        """
        if not examples:
            raise CacheError("`examples` must name at least one demonstration, but is empty")
        if min(examples) < 0 or max(examples) >= len(self):
            raise CacheError(f"`examples` must be in [0, {len(self)}), but got {min(examples)} to {max(examples)}")
        wanted = np.asarray(examples, np.int64)
        shards = np.searchsorted(self._firsts, wanted, side="right") - 1
        runs = np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(shards)) + 1)
        parts = [(int(shards[run[0]]), wanted[run] - self._firsts[shards[run[0]]]) for run in runs]
        if not self.has_rows:
            return LabelOnly(torch.from_numpy(np.concatenate([self._labels(*part) for part in parts])))
        return _slice([self._block(*part) for part in parts])

    def _labels(self, number: int, examples: Array) -> Array:
        shard = self._shards[number]
        found: Array = shard.arrays.scalars[0, shard.tokens_of(examples)].astype(np.float32)
        return found

    def _block(self, number: int, examples: Array) -> _Block:
        shard, bits = self._shards[number], self.manifest.key.bits
        tokens = shard.tokens_of(examples)
        counts = shard.arrays.counts[tokens].astype(np.int64)
        width = int(counts.max(initial=1))
        used = np.arange(width) < counts[:, None]
        entries = (shard.entry_starts[tokens][:, None] + np.arange(width))[used]
        ids = np.full(used.shape, -1, np.int64)
        logprobs = np.full(used.shape, -np.inf, np.float32)
        ids[used] = unpack_ids(shard.arrays.ids, entries, bits)
        logprobs[used] = shard.arrays.logprobs[entries]
        scalars = shard.arrays.scalars[:, tokens].astype(np.float32)
        return _Block(ids, logprobs, scalars, int(counts.min(initial=width)))


def _slice(blocks: list[_Block]) -> CachedSlice:
    width = max(block.ids.shape[1] for block in blocks)
    ids = torch.from_numpy(np.concatenate([_widened(block.ids, width, -1) for block in blocks]))
    logprobs = torch.from_numpy(np.concatenate([_widened(block.logprobs, width, -np.inf) for block in blocks]))
    log_tail, entropy, label = torch.from_numpy(np.concatenate([block.scalars for block in blocks], axis=1))
    total = torch.logaddexp(logprobs.logsumexp(-1), log_tail)
    return CachedSlice(
        ids=ids,
        logprobs=logprobs - total[:, None],
        label_logprob=label - total,
        entropy=entropy,
        tail_mass=(log_tail - total).exp(),
        fewest=min(block.fewest for block in blocks),
    )


def _widened(rows: Array, width: int, fill: float) -> Array:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)
