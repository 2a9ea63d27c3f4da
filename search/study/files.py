"""Small files: a crash leaves the old one or the new one, never half. Also names: of shared files and of studies."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from ...spaces.errors import UserError
from ...trainers.paths import flush

BIAS_FILE = "cache_bias.json"
"""In the study's folder: what its caches lose."""
SEEN_FILE = "seen.json"
"""In a confirmation's folder: ids of all problems that some trial has seen before it."""

LONGEST_BYTES = 200
"""File names end at 255 bytes, and what is made of a study's name adds to it."""
_CONFIRMATION = re.compile(r"\.confirmation-[0-9a-f]{8}(-\d+)?$")
"""What the name of a study's confirmation adds to it."""


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `text` so that a reader, or a crash at any moment, finds the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # nobody knows the temporary one
    with open(opened, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush(path.parent)


def write_json(path: Path, data: Any, mode: int = 0o644) -> None:
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", mode)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        read = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return dict(read)


def require_writable(folder: Path, field: str, remedy: str = "choose another folder, or make it writable") -> None:
    """Raise UserError, naming `field`, when this user may not write into a folder, or make it where it is not yet."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "is no folder" if not place.is_dir() else "may not be written here (read-only, or another user's)"
        raise UserError(f"`{field}` must be a folder that can be written, but {place} {why}; {remedy}", field=field)


def _checked(name: str) -> str:
    own = _CONFIRMATION.sub("", name)
    if re.fullmatch(r"[\w.-]+", own) is None or not own.strip("."):
        raise ValueError(
            "a name must match the pattern [\\w.-]+ (letters, digits, `_`, `-` and dots), and be more than dots, but "
            f"got {name[:80]!r}; it names a folder"
        )
    if (size := len(own.encode())) > LONGEST_BYTES:
        raise ValueError(
            f"a name must have at most {LONGEST_BYTES} bytes, as it names files, but got {size} ({own[:20]!r}...); "
            "shorten it"
        )
    return name


StudyName = Annotated[str, AfterValidator(_checked)]
