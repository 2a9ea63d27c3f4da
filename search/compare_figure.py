"""The figure of a comparison: where each shared design ranks in each pair, with intervals, and on average."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from ..spaces.figure import FORMATS, INK, PALE
from .compare import Comparison

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Okabe and Ito's, told apart by colour-blind readers too."""
MARKERS = "osv^DPX"

__all__ = ["FORMATS", "draw_ranks"]


def draw_ranks(found: Comparison, path: Path) -> None:
    """Write the figure to a PNG, SVG or PDF file."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    path.parent.mkdir(parents=True, exist_ok=True)
    height = 0.16 * len(found.rows) * (len(found.studies) + 2) + 1.2
    figure = Figure(figsize=(8.5, height), layout=ConstrainedLayoutEngine())
    panel = figure.subplots()
    for row, design in enumerate(found.rows):
        panel.axhspan(row - 0.5, row + 0.5, color="#f4f4f4" if row % 2 else "white", zorder=0)
        for index, place in enumerate(design.places):
            _interval(panel, row, index, place, len(found.studies))
        _mean(panel, row, design, len(found.studies))
    _frame(panel, found)
    _legend(figure, panel, found)
    figure.savefig(path, dpi=150)


def _height(row: int, index: int, count: int) -> float:
    """Where in a design's band a pair is drawn; the mean comes first."""
    return row - 0.36 + 0.72 * (index + 1) / count


def _interval(panel: Any, row: int, index: int, place: Any, count: int) -> None:
    y, color = _height(row, index, count), COLORS[index % len(COLORS)]
    panel.plot([place.low, place.high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
    panel.plot([place.rank], [y], color=color, marker=MARKERS[index % len(MARKERS)], markersize=5, linestyle="none")


def _mean(panel: Any, row: int, design: Any, count: int) -> None:
    y = _height(row, -1, count)
    panel.plot([design.low, design.high], [y, y], color=INK, linewidth=2.2, solid_capstyle="butt")
    panel.plot([design.mean_rank], [y], color=INK, marker="d", markersize=7, linestyle="none")


def _frame(panel: Any, found: Comparison) -> None:
    count = len(found.rows)
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_xlim(0.7, count + 0.3)
    panel.set_xticks(range(1, count + 1))
    panel.set_yticks(range(count), [fill(row.title, 28) for row in found.rows])
    panel.set_xlabel("rank among the shared designs (1 is best), with 95 % interval")
    panel.tick_params(length=0, labelcolor=INK)
    panel.grid(axis="x", color=PALE, linewidth=0.4)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _legend(figure: Any, panel: Any, found: Comparison) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=INK, marker="d", linewidth=2.2, label="mean of the pairs")]
    handles += [
        Line2D([], [], color=COLORS[index % len(COLORS)], marker=MARKERS[index % len(MARKERS)], label=study)
        for index, study in enumerate(found.short_names)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False)
