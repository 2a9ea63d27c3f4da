"""Telling a local path from a hub id."""

from __future__ import annotations

from pathlib import Path

from ..spaces.errors import UserError


def local_path(path: str, base: Path, *, suffixes: tuple[str, ...], field: str) -> Path | None:
    """The existing local file or folder that `path` names, seen from `base`; None when it reads as a hub id.

    Raises UserError when `path` can only be local (by its form or suffix) and is not there.
    """
    candidate = (base / Path(path).expanduser()).resolve()
    if candidate.exists():
        return candidate
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(suffixes)
    if looks_local:
        raise UserError(
            f"`path` must exist, but {candidate} does not; relative paths start at the folder of the YAML "
            f"file ({base})",
            field=field,
        )
    return None
