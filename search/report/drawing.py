"""How a report draws: matplotlib's figures as inline SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, SOFT, RULE, ACCENT, BASE, THIRD, FOURTH, BAD, WASH, PAPER = (f"#{number:02x}0f0e" for number in range(1, 11))
"""Stand-ins that no drawing uses by chance; the page's stylesheet has the colours."""
VARIABLES = {
    INK: "--ink", SOFT: "--soft", RULE: "--rule", ACCENT: "--accent", BASE: "--base", THIRD: "--third",
    FOURTH: "--fourth", BAD: "--bad", WASH: "--wash",
    PAPER: "--paper",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.labelcolor": INK,
}
WIDTH = 4.8
"""Inches: at this width text keeps its size on a telephone and three figures fit on a wide screen."""


class Drawing:
    """One figure with one panel or several; its functions are called within the style."""

    def __init__(self, name: str, label: str, height: float = 3.0, panels: tuple[int, int] = (1, 1)) -> None:
        self._name, self._label = name, label
        self._tips: dict[str, str] = {}
        self.figure = Figure(figsize=(WIDTH, height), layout="constrained")
        self.axes = self.figure.subplots(*panels, squeeze=False).flatten()
        self.axis = self.axes[0]

    def tip(self, artist: Any, text: str) -> None:
        """Show `text` when the pointer rests on `artist`."""
        key = f"tip{len(self._tips)}"
        artist.set_gid(key)
        self._tips[key] = text

    def svg(self) -> str:
        """The figure as an SVG element for a page that has the colours."""
        file = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": self._name}):
            self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'<svg .*?viewBox="([^"]+)"[^>]*>', self._opening, text, count=1, flags=re.DOTALL)
        text = re.sub(r'<g id="(tip\d+)">', lambda found: f"<g><title>{escape(self._tips[found[1]])}</title>", text)
        text = re.sub(r'<g id="[^"]*">', "<g>", text)
        for color, variable in VARIABLES.items():
            text = text.replace(color, f"var({variable})")
        return text

    def _opening(self, found: re.Match[str]) -> str:
        return f'<svg viewBox="{found[1]}" role="img" aria-label="{escape(self._label)}" class="plot">'
