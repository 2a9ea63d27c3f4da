"""`target_reading/` of an export: the files that read demonstrations, as they are, so that both read alike.

They import each other, paths and errors alone; only the names of these modules change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

FOLDER = "target_reading"
ROOT = Path(__file__).parents[2]
EXPORTED = (
    "demonstrations", "files", "formats", "known", "load", "messages", "notes", "shapes", "sources", "style",
    "template", "tokenization",
)  # fmt: skip
"""Modules of `trainers/data`."""
RENAMED = {
    "from ...spaces.errors import": "from .errors import",
    "from ..spaces.errors import": "from .errors import",
    "from ..paths import": "from .paths import",
    "from ..settings import DataSettings": "from types import SimpleNamespace as DataSettings",
}


def reading_files() -> Iterator[tuple[str, str]]:
    """Name and text of each file of the folder."""
    yield "__init__.py", '"""Reads demonstrations as the search did. Written by `qtarget export`."""\n'
    places = [ROOT / "spaces" / "errors.py", ROOT / "trainers" / "paths.py"]
    for place in (*places, *(ROOT / "trainers" / "data" / f"{name}.py" for name in EXPORTED)):
        text = place.read_text("utf-8")
        for before, after in RENAMED.items():
            text = text.replace(before, after)
        yield place.name, text
