"""Caches on disk as a whole: where they lie, what is wrong with one, what there is, what may go. Free of torch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from .format import REBUILD, CacheError, CacheKey, Manifest, ShardEntry, file_sha256, shard_bytes

MANIFEST = "manifest.json"


def default_root() -> Path:
    """`$QTARGET_CACHE`, or `~/.cache/qtarget`."""
    return Path(os.environ.get("QTARGET_CACHE") or Path.home() / ".cache" / "qtarget")


def cache_folder(root: Path, key: CacheKey) -> Path:
    """Where the cache of a key lies under a root."""
    return root / key.id[:32]


def build_lock(folder: Path) -> FileLock:
    """Held by whoever builds or removes a cache."""
    return FileLock(folder.with_name(folder.name + ".lock"))


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the whole new one, also after a power cut."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete cache. Raises CacheError when there is none or it cannot be read."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        state = "is not finished" if folder.is_dir() else "does not exist"
        raise CacheError(f"the teacher cache {folder} {state}; {REBUILD} (a started one is continued)") from None
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise CacheError(f"{path} is no manifest of a teacher cache ({error}); remove {folder} and {REBUILD}") from None


def shard_fault(folder: Path, key: CacheKey, entry: ShardEntry, *, checksum: bool) -> str | None:
    """What is wrong with a shard's file, or None."""
    path = folder / entry.name
    if entry.bytes != shard_bytes(key, entry.examples, entry.tokens, entry.entries):
        return f"{entry.name} cannot hold the {entry.entries} entries it is said to hold in {entry.bytes} bytes"
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        return f"{entry.name} is missing"
    if size != entry.bytes:
        return f"{entry.name} must have {entry.bytes} bytes, but has {size}"
    if checksum and (found := file_sha256(path)) != entry.sha256:
        return f"{entry.name} must have SHA-256 {entry.sha256[:16]}..., but has {found[:16]}..."
    return None


def verify(folder: Path, *, checksums: bool = True) -> Manifest:
    """Check a cache, bytes included; returns its manifest. Raises CacheError that names the first fault."""
    manifest = read_manifest(folder)
    for entry in manifest.shards:
        if fault := shard_fault(folder, manifest.key, entry, checksum=checksums):
            raise CacheError(f"the teacher cache {folder} is torn: {fault}; remove the folder and {REBUILD}")
    return manifest


@dataclass(frozen=True)
class CacheInfo:
    """One folder under a cache root."""

    folder: Path
    bytes: int
    used: float
    """Seconds since the epoch when it was last written or opened."""
    manifest: Manifest | None
    problem: str | None
    """Why it cannot be used; None for a complete cache (checksums not read)."""


def _info(folder: Path) -> CacheInfo:
    stats = [path.stat() for path in folder.iterdir() if path.is_file()]
    size = sum(stat.st_size for stat in stats)
    used = max((stat.st_mtime for stat in stats), default=folder.stat().st_mtime)
    try:
        return CacheInfo(folder, size, used, verify(folder, checksums=False), None)
    except CacheError as error:
        return CacheInfo(folder, size, used, None, str(error))


def _is_cache(folder: Path) -> bool:
    """Only folders that a build made: a root may be shared with other files, which are none of ours."""
    return folder.is_dir() and (folder / MANIFEST).is_file() | any(folder.glob("shard-*"))


def list_caches(root: Path) -> list[CacheInfo]:
    """Every cache under a root, complete or not, the most recently used first."""
    folders = [folder for folder in root.iterdir() if _is_cache(folder)] if root.is_dir() else []
    return sorted((_info(folder) for folder in folders), key=lambda info: -info.used)


def prune(root: Path, *, keep: Collection[str] = (), unused_days: float = 0.0) -> list[CacheInfo]:
    """Remove caches; returns the removed ones. One that is being built stays.

    `keep` has folder names or key ids; `unused_days` spares what was used within that many days.
    """
    kept = {name[:32] for name in keep}
    oldest = time.time() - 86400 * unused_days
    removable = [info for info in list_caches(root) if info.folder.name not in kept and info.used <= oldest]
    return [info for info in removable if _remove(info.folder)]


def _remove(folder: Path) -> bool:
    try:
        with build_lock(folder).acquire(timeout=0):
            # The manifest goes first: a removal that is cut short must not leave a complete-looking cache.
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
    except Timeout:
        return False
    return True


def mark_used(folder: Path) -> None:
    """Remember the use for `prune`; a read-only cache cannot, which is harmless."""
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)


def missing_message(folder: Path, key: CacheKey) -> str:
    """Why there is no cache for a key, with the nearest ones named by what differs."""
    others = [info.manifest.key for info in list_caches(folder.parent) if info.manifest is not None]
    nearest = min(others, key=lambda other: len(key.differences(other)), default=None)
    hint = f"; the nearest there is differs in {', '.join(key.differences(nearest))}" if nearest else ""
    return f"there is no teacher cache for this model and data at {folder}{hint}; {REBUILD}"
