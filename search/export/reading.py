"""`target_reading/` of an export: the files that read demonstrations, and what a saved model needs, as they are.

They import each other, paths and errors alone; only the names of these modules change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

FOLDER = "target_reading"
ROOT = Path(__file__).parents[2]
EXPORTED = (
    "demonstrations", "files", "formats", "load", "messages", "notes", "shapes", "sources", "style", "template",
    "tokenization", "turns",
)  # fmt: skip
"""Modules of `trainers/data`."""
MODELS = ("merging", "tokens")
"""Modules of `trainers/models`, which need nothing of ours."""
RENAMED = {
    "from ...spaces.errors import": "from .errors import",
    "from ..spaces.errors import": "from .errors import",
    "from ..models.tokens import": "from .tokens import",
    "from ..paths import": "from .paths import",
    "from ..settings import DataSettings": "from types import SimpleNamespace as DataSettings",
}


def reading_files() -> Iterator[tuple[str, str]]:
    """Name and text of each file of the folder."""
    yield "__init__.py", '"""Reads demonstrations as the search did. Written by `qtarget export`."""\n'
    places = [ROOT / "spaces" / "errors.py", ROOT / "trainers" / "paths.py"]
    for room, names in (("data", EXPORTED), ("models", MODELS)):
        places += [ROOT / "trainers" / room / f"{name}.py" for name in names]
    for place in places:
        text = place.read_text("utf-8")
        for before, after in RENAMED.items():
            text = text.replace(before, after)
        yield place.name, text
