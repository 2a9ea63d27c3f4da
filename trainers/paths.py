"""Paths: filled in for this host, told from hub ids, and waited for until they are on the disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..spaces.errors import UserError

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


def local_path(path: str, base: Path, *, suffixes: tuple[str, ...], field: str) -> Path | None:
    """The existing local file or folder that `path` names, seen from `base`; None when it reads as a hub id.

    Raises UserError when `path` can only be local (by its form or suffix) and is not there, or names a variable that is
    not set.
    """
    written = (base / Path(path)).resolve()
    candidate = written if written.exists() else (base / expanded(path, field)).resolve()
    if candidate.exists():
        return candidate
    looks_local = path.startswith((".", "/", "~", "$")) or path.count("/") > 1 or path.endswith(suffixes)
    if looks_local:
        raise UserError(
            f"`path` must exist, but {candidate} does not; relative paths start at the folder of the YAML "
            f"file ({base})",
            field=field,
        )
    return None


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
