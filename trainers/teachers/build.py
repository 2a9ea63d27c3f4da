"""One pass of a teacher over the demonstrations, written as a cache that every trial and study shares.

Rank r of W writes shards r, r + W, ...; what a shard holds depends on the data alone, so a killed build continues with
any number of ranks at the last whole shard. The manifest is written when every shard has been checked.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from pydantic import ValidationError

from ..data.batches import collate
from ..data.demonstrations import Demonstrations
from ..models.memory import out_of_memory, release
from .format import REBUILD, CacheError, CacheKey, Manifest, ShardEntry, encode, file_sha256
from .rows import TokenRows, shard_arrays, teacher_rows
from .sources import FrozenModel
from .store import MANIFEST, build_lock, cache_folder, shard_fault, verify, write_atomically

SHARD_TOKENS = 2**16
"""Valid tokens of a shard, about 17 MB at k = 64: what a killed build loses at most."""
SPACE_RESERVE = 2**26
"""Bytes that a build leaves free."""
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (tokens done, all tokens) of this rank's share after each shard."""


@dataclass(frozen=True)
class Ranks:
    """Who writes: rank `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """From torch.distributed when it is initialised, else one rank."""
        dist = torch.distributed
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world > 1:
            torch.distributed.barrier()


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: consecutive demonstrations."""

    name: str
    first: int
    """Index of its first demonstration."""
    examples: int
    tokens: int

    def fits(self, entry: ShardEntry) -> bool:
        """Whether a shard on disk is the planned one."""
        planned = (self.name, self.first, self.examples, self.tokens)
        return planned == (entry.name, entry.first, entry.examples, entry.tokens)


@dataclass(frozen=True)
class Pass:
    """How the teacher goes over the data."""

    teacher: FrozenModel
    data: Demonstrations
    key: CacheKey
    pad_token_id: int
    batch_tokens: int
    """Padded tokens of one forward pass, at most (a longer demonstration goes alone)."""

    @torch.no_grad()
    def rows(self, plan: ShardPlan) -> list[TokenRows]:
        """What is kept of a shard's demonstrations, in order."""
        kept: dict[int, TokenRows] = {}
        for indices in self._batches(plan):
            kept |= zip(indices, self._answers(indices), strict=True)
        return [kept[index] for index in sorted(kept)]

    def _answers(self, indices: list[int]) -> list[TokenRows]:
        """What is kept of some demonstrations, asked together; in halves where memory does not suffice."""
        device = self.teacher.head.weight.device
        try:
            batch = collate([self.data[index] for index in indices], indices, self.pad_token_id).to(device)
            return teacher_rows(self.teacher, batch, self.key)
        except (RuntimeError, MemoryError) as error:
            if len(indices) == 1 or not out_of_memory(error):
                raise
        release()  # outside the handler, whose traceback holds the tensors
        half = len(indices) // 2
        log.warning("out of memory while building a cache: %d demonstrations go in two parts", len(indices))
        return [*self._answers(indices[:half]), *self._answers(indices[half:])]

    def _batches(self, plan: ShardPlan) -> Iterator[list[int]]:
        """Indices of demonstrations of similar length, the longest first: then memory runs out at once or never."""
        batch: list[int] = []
        for index in sorted(range(plan.first, plan.first + plan.examples), key=lambda i: -self.data[i].length):
            if batch and (len(batch) + 1) * self.data[batch[0]].length > self.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        yield batch


def build(
    teacher: FrozenModel,
    data: Demonstrations,
    key: CacheKey,
    root: Path,
    *,
    pad_token_id: int,
    batch_tokens: int = 8192,
    shard_tokens: int = SHARD_TOKENS,
    ranks: Ranks | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write, continue or repair the cache of `key`; returns its folder, at once when it is complete.

    Every rank calls this. Raises CacheError when the key is for other data, the disk is too small, or the teacher's
    logits are too few or not finite.
    """
    if key.data != data.fingerprint:
        raise CacheError(f"the key must be for these demonstrations ({data.fingerprint}), but is for {key.data}")
    ranks = ranks or Ranks.current()
    folder = cache_folder(root, key)
    folder.mkdir(parents=True, exist_ok=True)
    with build_lock(folder) if ranks.rank == 0 else nullcontext():
        ranks.wait()
        if not _complete(folder):
            plans = plan_shards(data, shard_tokens)
            share = plans[ranks.rank :: ranks.world]
            _write_share(Pass(teacher, data, key, pad_token_id, batch_tokens), folder, share, on_progress)
            ranks.wait()
            if ranks.rank == 0:
                _finish(folder, key, plans)
        ranks.wait()
    return folder


def _complete(folder: Path) -> bool:
    try:
        verify(folder)
    except CacheError:
        return False
    return True


def plan_shards(data: Demonstrations, shard_tokens: int = SHARD_TOKENS) -> list[ShardPlan]:
    """Cut the demonstrations, in order, into shards of `shard_tokens` valid tokens or a little more."""
    plans: list[ShardPlan] = []
    first = tokens = 0
    for index, example in enumerate(data):
        tokens += example.num_labels
        if tokens >= shard_tokens or index == len(data) - 1:
            plans.append(ShardPlan(f"shard-{len(plans):05d}.bin", first, index + 1 - first, tokens))
            first, tokens = index + 1, 0
    return plans


def _write_share(work: Pass, folder: Path, share: Sequence[ShardPlan], on_progress: Progress | None) -> None:
    key = work.key
    waiting = [plan for plan in share if finished_shard(folder, key, plan) is None]
    total, left = sum(plan.tokens for plan in share), sum(plan.tokens for plan in waiting)
    rate = key.max_bytes_per_token
    for plan in waiting:
        needed = int(left * rate)
        require_space(folder, needed)
        entry = _write_shard(folder, key, plan, work.rows(plan), needed)
        if key.adaptive:  # how many entries an adaptive cache keeps is known once a shard is written
            rate = entry.bytes / entry.tokens
        left -= plan.tokens
        if on_progress is not None:
            on_progress(total - left, total)


def require_space(folder: Path, needed: int) -> None:
    """Raises CacheError unless `needed` bytes fit on the disk, with some to spare."""
    free = shutil.disk_usage(folder).free
    if needed + SPACE_RESERVE > free:
        raise _too_small(folder, needed, f"only {free / 2**20:.0f} MiB are free")


def _too_small(folder: Path, needed: int, state: str) -> CacheError:
    return CacheError(
        f"the teacher cache needs {(needed + SPACE_RESERVE) / 2**20:.0f} MiB more in {folder}, but {state}; free some "
        "(`qtarget cache prune`), point QTARGET_CACHE at a larger disk, or lower `k`; what is written is kept and "
        "continued, but not used before it is complete"
    )


def _write_shard(folder: Path, key: CacheKey, plan: ShardPlan, rows: list[TokenRows], needed: int) -> ShardEntry:
    """The shard's file, whole on disk, and then its description."""
    arrays, tail_mass = shard_arrays(rows, key)
    path = folder / plan.name
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            for section in encode(key, arrays):
                file.write(section)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        entry = ShardEntry(
            name=plan.name,
            first=plan.first,
            examples=plan.examples,
            tokens=plan.tokens,
            entries=len(arrays.logprobs),
            tail_mass=tail_mass,
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
        )
        write_atomically(path.with_suffix(".json"), entry.model_dump_json())
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in FULL_DISK:
            raise _too_small(folder, needed, f"the disk is full ({error.strerror})") from error
        raise
    return entry


def finished_shard(folder: Path, key: CacheKey, plan: ShardPlan) -> ShardEntry | None:
    """The description of a planned shard that is whole on disk, checksum included; else None."""
    try:
        text = (folder / plan.name).with_suffix(".json").read_text("utf-8")
        entry = ShardEntry.model_validate_json(text)
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None
    return entry if plan.fits(entry) and shard_fault(folder, key, entry, checksum=True) is None else None


def _finish(folder: Path, key: CacheKey, plans: list[ShardPlan]) -> None:
    """Check all shards, remove what belongs to none, write the manifest."""
    entries = {plan.name: finished_shard(folder, key, plan) for plan in plans}
    missing = [name for name, entry in entries.items() if entry is None]
    if missing:
        raise CacheError(f"{folder} lacks the shards {', '.join(missing)}: a rank did not write its share; {REBUILD}")
    for number in count(len(plans)):  # left by a build with smaller shards
        stale = folder / f"shard-{number:05d}.bin"
        if not stale.exists():
            break
        stale.unlink()
        stale.with_suffix(".json").unlink(missing_ok=True)
    manifest = Manifest(key=key, shards=tuple(entry for entry in entries.values() if entry is not None))
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1))
