"""Reports inside a notebook, and where progress is printed."""

from __future__ import annotations

import html
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

HEIGHT = 720
"""Pixels of a report in a notebook."""


@dataclass(frozen=True)
class Page:
    """A report: `path` names the file, and a notebook shows it where it stands last in a cell."""

    path: Path
    markdown: Path

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        """In a frame of its own, so that neither page styles the other; works offline."""
        source = html.escape(self.path.read_text("utf-8"))
        frame = f'width="100%" height="{HEIGHT}" style="border: 0"'
        return f'<iframe srcdoc="{source}" {frame} sandbox="allow-scripts"></iframe>'


def console() -> Console:
    """Bars in a terminal, and in a notebook that has ipywidgets; in any other a line for each finished trial."""
    found = Console()
    if found.is_jupyter and find_spec("ipywidgets") is None:
        return Console(force_jupyter=False, force_terminal=False, width=110)
    return found
