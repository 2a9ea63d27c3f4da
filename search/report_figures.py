"""The pictures of a report, drawn by matplotlib as inline SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .history import TrialRecord
from .report_items import Slice

INK, SOFT, RULE, ACCENT, BASE, THIRD, FOURTH, BAD = (f"#0{number}0f0e" for number in range(1, 9))
"""Stand-ins that no drawing uses by chance; the page's stylesheet has the colours."""
VARIABLES = {
    INK: "--ink", SOFT: "--soft", RULE: "--rule", ACCENT: "--accent", BASE: "--base", THIRD: "--third",
    FOURTH: "--fourth", BAD: "--bad",
}  # fmt: skip
STATE_COLORS = {"complete": ACCENT, "pruned": SOFT, "infeasible": BAD, "failed": BAD}
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


@matplotlib.rc_context(STYLE)
def effects(rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """Points above plain SFT with intervals; a row has `title`, and `effect`, `low`, `high` as score differences."""
    drawing = Drawing("effects", label, 0.75 + 0.42 * len(rows))
    axis = drawing.axis
    axis.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(reversed(rows)):
        low, effect, high = (100 * float(row[name]) for name in ("low", "effect", "high"))
        color = ACCENT if low > 0 else BAD if high < 0 else SOFT
        (line,) = axis.plot([low, high], [place, place], color=color, linewidth=2.2, solid_capstyle="round")
        (dot,) = axis.plot([effect], [place], "o", color=color, markersize=6)
        for artist in (line, dot):
            drawing.tip(artist, f"{row['title']}: {effect:+.1f} points, interval {low:+.1f} to {high:+.1f}")
    names = [str(row["title"]).split(":")[0] for row in reversed(rows)]  # trial 7: its formula stands in the table
    axis.set_yticks(range(len(rows)), [_short(name, 30) for name in names])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("points above plain SFT")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def curves(found: Mapping[str, Mapping[str, Sequence[float]]], name: str, label: str) -> str:
    """One curve a design over the student's probability p of the observed token; `name`: gamma or label_target."""
    drawing = Drawing(f"curves {name}", label, 2.9)
    axis = drawing.axis
    if name != "gamma":
        axis.plot([0, 1], [0, 1], color=SOFT, linewidth=0.9, linestyle=(0, (1, 2)), label="p itself: teaches nothing")
    looks = {"winner": (ACCENT, 2.4, "-"), "sft": (BASE, 1.4, "-"), "dft": (THIRD, 1.4, (0, (5, 2)))}
    for title, curve in reversed(list(found.items())):
        color, width, dashes = looks.get(title, (FOURTH, 1.4, (0, (2, 1.5))))
        axis.plot(curve["p"], curve[name], color=color, linewidth=width, linestyle=dashes, label=title)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.05, 1.1)
    axis.set_xlabel("p, the student's probability of the observed token")
    handles, titles = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], titles[::-1], loc="lower right")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def history(records: Sequence[TrialRecord]) -> str:
    """Score of each trial in the order of the queue, and the best so far."""
    drawing = Drawing("history", "Score of each trial, and the best so far")
    axis, best = drawing.axis, 0.0
    line: list[tuple[int, float]] = []
    for record in records:
        if record.score is None:
            continue
        hollow = record.state != "complete"
        color = BASE if record.baseline else STATE_COLORS.get(record.state, SOFT)
        fill = "none" if hollow else color
        (dot,) = axis.plot([record.number], [record.score], "o", color=color, markerfacecolor=fill, markersize=5.5)
        drawing.tip(dot, f"trial {record.number}, {record.state}: {record.score:.3f}  {record.title}")
        if record.state == "complete":
            best = max(best, record.score)
            line.append((record.number, best))
    axis.step(*zip(*line, strict=True), where="post", color=ACCENT, linewidth=1.2, alpha=0.7) if line else None
    axis.set_xlabel("trial (grey-blue: published baselines; hollow: pruned)")
    axis.set_ylabel("score")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def rungs(records: Sequence[TrialRecord], results: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Score over optimiser steps; a line that ends early was pruned there. None without rungs."""
    if not any(record.rungs for record in records):
        return None
    drawing = Drawing("rungs", "Score of each trial at its rungs and at its end")
    for record in records:
        points = dict(record.rungs)
        steps = results.get(record.number, {}).get("steps")
        if record.score is not None and steps is not None:
            points[int(steps)] = record.score
        if not points or record.same_as is not None:
            continue
        pruned = record.state == "pruned"
        color = SOFT if pruned else BASE if record.baseline else ACCENT
        xs, ys = zip(*sorted(points.items()), strict=True)
        (line,) = drawing.axis.plot(xs, ys, color=color, linewidth=1.2, marker="o", markersize=3.5, alpha=0.8)
        drawing.tip(line, f"trial {record.number}, {record.state}: {record.title}")
        if pruned:
            drawing.axis.plot(xs[-1:], ys[-1:], "x", color=BAD, markersize=6)
    drawing.axis.set_xlabel("optimiser steps (×: pruned there)")
    drawing.axis.set_ylabel("score")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def importance(shares: Mapping[str, float]) -> str:
    """How much of the score's variation each searched parameter explains."""
    drawing = Drawing("importance", "Importance of each searched parameter", 0.7 + 0.34 * len(shares))
    for place, (name, share) in enumerate(reversed(list(shares.items()))):
        (bar,) = drawing.axis.barh([place], [share], color=ACCENT, height=0.55)
        drawing.tip(bar, f"{name}: {100 * share:.0f} %")
    drawing.axis.set_yticks(range(len(shares)), [_short(name, 34) for name in reversed(list(shares))])
    drawing.axis.tick_params(axis="y", length=0, labelcolor=INK)
    drawing.axis.grid(axis="y", visible=False)
    drawing.axis.set_xlabel("share of the score's variation")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def parameters(records: Sequence[TrialRecord], names: Sequence[str]) -> str | None:
    """Score over each of the numeric parameters in `names`; None where there is nothing to draw."""
    points = {
        name: [
            (float(record.parameters[name]), record)
            for record in records
            if record.score is not None and isinstance(record.parameters.get(name), int | float)
        ]
        for name in names
    }
    shown = {name: found for name, found in points.items() if len({value for value, _ in found}) > 1}
    if not shown:
        return None
    rows = (len(shown) + 1) // 2
    drawing = Drawing("parameters", "Score over each searched parameter", 0.3 + 1.9 * rows, (rows, 2))
    for axis, (name, found) in zip(drawing.axes, shown.items(), strict=False):
        for value, record in found:
            hollow = record.state != "complete"
            color = BASE if record.baseline else SOFT if hollow else ACCENT
            fill = "none" if hollow else color
            (dot,) = axis.plot([value], [record.score], "o", color=color, markerfacecolor=fill, markersize=4)
            drawing.tip(dot, f"trial {record.number}: {name} {value:.3g}, score {record.score:.3f}")
        axis.set_title(_short(".".join(name.split(".")[-2:]), 26), fontsize=9, loc="left", color=SOFT)
        if min(value for value, _ in found) > 0 and "learning_rate" in name:
            _logarithmic(axis)
    for axis in drawing.axes[len(shown) :]:
        axis.set_axis_off()
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def slices(parts: Sequence[Slice]) -> str:
    """Accuracy of the winner and of plain SFT on parts of the problems."""
    drawing = Drawing("slices", "Accuracy by slice, winner and plain SFT", 0.9 + 0.34 * len(parts))
    axis = drawing.axis
    for place, part in enumerate(reversed(parts)):
        axis.plot([part.base, part.score], [place, place], color=RULE, linewidth=2)
        (base,) = axis.plot([part.base], [place], "o", color=BASE, markersize=6, label="plain SFT")
        (ours,) = axis.plot([part.score], [place], "o", color=ACCENT, markersize=6, label="winner")
        drawing.tip(base, f"plain SFT: {part.base:.3f} on {part.problems} problems")
        drawing.tip(ours, f"winner: {part.score:.3f} on {part.problems} problems")
    axis.set_yticks(range(len(parts)), [_short(f"{part.by}: {part.name}", 36) for part in reversed(parts)])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(-0.6, len(parts) - 0.4)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="y", visible=False)
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(handles[:2], ["plain SFT", "winner"], loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2)
    axis.set_xlabel("share of problems answered right")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def pareto(points: Sequence[tuple[TrialRecord, float, bool]], name: str) -> str:
    """Score over retention, one dot a trial; the third entry says whether no other trial beats it in both."""
    drawing = Drawing("pareto", f"Score and {name} of each trial")
    for record, retention, front in points:
        color = BASE if record.baseline else ACCENT if front else SOFT
        fill = color if front else "none"
        (dot,) = drawing.axis.plot([retention], [record.score], "o", color=color, markerfacecolor=fill, markersize=6)
        drawing.tip(dot, f"trial {record.number}: {name} {retention:.4g}, score {record.score:.3f}  {record.title}")
    drawing.axis.set_xlabel(f"{name} (filled: no other trial is better in both)")
    drawing.axis.set_ylabel("score")
    return drawing.svg()


def _logarithmic(axis: Any) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
