"""Small files: written so that a crash leaves the old one or the new one, never half; and names that rooms share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...trainers.paths import flush

BIAS_FILE = "cache_bias.json"
"""In the study's folder: what its caches lose."""


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Write `text` so that a reader, or a crash at any moment, finds the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
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
