"""Paths: filled in for this host, told from hub ids, files by pattern, and waited for until they are on the disk."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from ..spaces.errors import UserError

POINTER, POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def expanded(path: str, field: str = "path") -> str:
    """`path` with `~`, `$NAME` and `${NAME}` as they are on this host.

    Raises UserError, naming `field`, for a variable that is not set or empty.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not os.environ.get(name):
            raise UserError(
                f"`{field}` may only name variables that are set, but got {path!r}, and {name} is not set here; "
                f"export {name}, or write the path out",
                field=field,
            )
        return os.environ[name]

    return _VARIABLE.sub(value, os.path.expanduser(path))


DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".gz", ".bz2", ".xz")
"""A path that ends so is no hub id."""


def local_path(path: str, base: Path, *, suffixes: tuple[str, ...], field: str) -> Path | None:
    """The existing local file or folder that `path` names, seen from `base`; None when it reads as a hub id.

    Raises UserError when `path` can only be local (by its form or suffix) and is not there, or names a variable that is
    not set.
    """
    written = (base / Path(path)).resolve()
    candidate = written if written.exists() else (base / expanded(path, field)).resolve()
    if candidate.exists():
        return candidate
    looks_local = path.startswith((".", "/", "~", "$")) or path.count("/") > 1 or path.lower().endswith(suffixes)
    if looks_local:
        raise UserError(
            f"`path` must exist, but {candidate} does not; relative paths start at the folder of the YAML "
            f"file ({base})",
            field=field,
        )
    return None


def refuse_unreadable(file: Path, title: str, field: str) -> None:
    """Raise UserError for a file of another user, or one that only points at another, as without Git LFS."""
    if file.exists() and not os.access(file, os.R_OK):
        raise UserError(f"{title} must be readable, but its rights do not let this user read it", field=field)
    if file.is_file() and file.stat().st_size < POINTER_BYTES and file.read_bytes().startswith(POINTER):
        raise UserError(
            f"{title} must be the file itself, but it is a pointer of Git LFS; run `git lfs pull` where it comes from",
            field=field,
        )


def lies_in(base: Path, path: str) -> bool:
    """Whether a path, or a pattern, names something that is there, seen from `base`."""
    written = os.path.expanduser(path)
    return (base / written).exists() or bool(glob.glob(str(_escaped(base) / written), recursive=True))


def _escaped(base: Path) -> Path:
    """A folder's name as a pattern that names it alone, whatever characters it has."""
    return Path(glob.escape(str(base)))


def matching_files(pattern: str, base: Path, *, field: str) -> list[Path] | None:
    """The files that a pattern with `*`, `?`, `[...]` or `**` names, seen from `base`, in the order of their names.

    None where `pattern` is no pattern, or the name of something that is there. Raises UserError when nothing matches.
    """
    written = expanded(pattern, field)
    place = base / written
    if not glob.has_magic(pattern) or place.exists():
        return None
    matches = glob.glob(str(_escaped(base) / written), recursive=True)
    found = sorted(Path(each) for each in matches if Path(each).is_file())
    if not found:
        raise UserError(
            f"`path` must name files, but nothing matches {place}; relative paths start at the folder of the YAML "
            f"file ({base})",
            field=field,
        )
    return found


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
