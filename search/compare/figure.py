"""The figure of a comparison: where each shared design ranks in each pair, with intervals, and on average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from ...spaces.figure import FORMATS, INK, PALE
from .ranking import Comparison

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Okabe and Ito's, told apart by colour-blind readers too."""
MARKERS = "osv^DPX"

__all__ = ["FORMATS", "Look", "draw_ranks", "paint_ranks"]

Tip = Callable[[Any, str], None]
"""Takes a drawn thing and what to say when the pointer rests on it."""


@dataclass(frozen=True)
class Look:
    """What differs between a picture in a file and one in a page."""

    ink: str = INK
    pale: str = PALE
    stripe: str = "#f4f4f4"
    columns: int = 4
    """Of the legend."""
    label: int = 28
    """Characters in a line of a design's name."""
    axis: str = "rank among the shared designs (1 is best), with 95 % interval"


def draw_ranks(found: Comparison, path: Path) -> None:
    """Write the figure to a PNG, SVG or PDF file."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(8.5, height(found)), layout=ConstrainedLayoutEngine())
    paint_ranks(figure.subplots(), found, Look())
    figure.savefig(path, dpi=150)


def height(found: Comparison) -> float:
    """Of the figure, in inches."""
    return 0.16 * len(found.rows) * (len(found.studies) + 2) + 1.2


def paint_ranks(panel: Any, found: Comparison, look: Look, tip: Tip = lambda artist, text: None) -> None:
    """Draw each design's rank in each pair and on average."""
    for row, design in enumerate(found.rows):
        if row % 2:
            panel.axhspan(row - 0.5, row + 0.5, color=look.stripe, zorder=0)
        for index, (place, name) in enumerate(zip(design.places, found.short_names, strict=True)):
            dot = _interval(panel, row, index, place, len(found.studies))
            tip(dot, f"{design.title} in {name}: score {place.score:.3f}, rank {place.rank:g}")
        dot = _mean(panel, row, design, len(found.studies), look)
        tip(dot, f"{design.title}: mean rank {design.mean_rank:.1f}, {design.low:.1f} to {design.high:.1f}")
    _frame(panel, found, look)
    _legend(panel.figure, found, look)


def _height(row: int, index: int, count: int) -> float:
    """Where in a design's band a pair is drawn; the mean comes first."""
    return row - 0.36 + 0.72 * (index + 1) / count


def _interval(panel: Any, row: int, index: int, place: Any, count: int) -> Any:
    y, color = _height(row, index, count), COLORS[index % len(COLORS)]
    panel.plot([place.low, place.high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
    marker = MARKERS[index % len(MARKERS)]
    return panel.plot([place.rank], [y], color=color, marker=marker, markersize=5, linestyle="none")[0]


def _mean(panel: Any, row: int, design: Any, count: int, look: Look) -> Any:
    y = _height(row, -1, count)
    panel.plot([design.low, design.high], [y, y], color=look.ink, linewidth=2.2, solid_capstyle="butt")
    return panel.plot([design.mean_rank], [y], color=look.ink, marker="d", markersize=7, linestyle="none")[0]


def _frame(panel: Any, found: Comparison, look: Look) -> None:
    count = len(found.rows)
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_xlim(0.7, count + 0.3)
    panel.set_xticks(range(1, count + 1))
    panel.set_yticks(range(count), [fill(row.title, look.label) for row in found.rows])
    panel.set_xlabel(look.axis)
    panel.tick_params(length=0, labelcolor=look.ink)
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color=look.pale, linewidth=0.4)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _legend(figure: Any, found: Comparison, look: Look) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=look.ink, marker="d", linewidth=2.2, label="mean of the pairs")]
    handles += [
        Line2D([], [], color=COLORS[index % len(COLORS)], marker=MARKERS[index % len(MARKERS)], label=study)
        for index, study in enumerate(found.short_names)
    ]
    columns = min(look.columns, len(handles))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)
