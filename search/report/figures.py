"""The pictures of a report, one function each: pairs and designs against SFT, curves, history, importance, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..compare.figure import Look, height, paint_ranks
from ..compare.ranking import Comparison
from ..store.history import TrialRecord
from .drawing import ACCENT, BAD, BASE, FOURTH, INK, PAPER, RULE, SOFT, STYLE, THIRD, WASH, Drawing
from .items import Slice

STATE_COLORS = {"complete": ACCENT, "pruned": SOFT, "infeasible": BAD, "failed": BAD}


@dataclass(frozen=True)
class Kept:
    """A trial whose retention was measured."""

    record: TrialRecord
    forgotten: float
    error: float | None
    """Standard error of `forgotten`."""
    unbeaten: bool
    """Whether no other trial is better in both."""


@matplotlib.rc_context(STYLE)
def effects(rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """Points above plain SFT with intervals; a row has `title`, and `effect`, `low`, `high` as score differences.

    `hollow`: whether the row is of the search only.
    """
    drawing = Drawing("effects", label, 0.75 + 0.42 * len(rows))
    axis = drawing.axis
    axis.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(reversed(rows)):
        low, effect, high = (100 * float(row[name]) for name in ("low", "effect", "high"))
        color = ACCENT if low > 0 else BAD if high < 0 else SOFT
        (line,) = axis.plot([low, high], [place, place], color=color, linewidth=2.2, solid_capstyle="round")
        fill = "none" if row.get("hollow") else color
        (dot,) = axis.plot([effect], [place], "o", color=color, markerfacecolor=fill, markersize=6)
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
        color = BASE if record.baseline and record.state != "infeasible" else STATE_COLORS.get(record.state, SOFT)
        fill = color if record.state == "complete" else PAPER
        (dot,) = axis.plot([record.number], [record.score], "o", color=color, markerfacecolor=fill, markersize=5.5)
        drawing.tip(dot, f"trial {record.number}, {record.state}: {record.score:.3f}  {record.title}")
        if record.state == "complete":
            best = max(best, record.score)
            line.append((record.number, best))
    if line:
        steps = [*line, (max(record.number for record in records if record.score is not None), best)]
        axis.step(*zip(*steps, strict=True), where="post", color=ACCENT, linewidth=1.2, alpha=0.7, zorder=1)
    axis.set_xlabel("trial (grey-blue: published baselines;\nhollow: pruned, red: infeasible)")
    axis.set_ylabel("score")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def rungs(records: Sequence[TrialRecord], results: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Score over optimiser steps; a line that ends early was pruned there, or waits there. None without rungs."""
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
        left = record.state in ("pruned", "paused")
        color = SOFT if left else BASE if record.baseline else ACCENT
        xs, ys = zip(*sorted(points.items()), strict=True)
        (line,) = drawing.axis.plot(xs, ys, color=color, linewidth=1.2, marker="o", markersize=3.5, alpha=0.8)
        drawing.tip(line, f"trial {record.number}, {record.state}: {record.title}")
        if left:
            drawing.axis.plot(xs[-1:], ys[-1:], "x", color=BAD, markersize=6)
    drawing.axis.set_xlabel("optimiser steps (×: pruned or paused there)")
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
            color = BAD if record.state == "infeasible" else BASE if record.baseline else ACCENT
            fill = color if record.state == "complete" else PAPER
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
def pareto(points: Sequence[Kept], name: str, unit: str, limit: float | None) -> str:
    """Score over what was forgotten, one dot a trial with its standard errors; `limit`: the most that is allowed."""
    drawing = Drawing("pareto", f"Score and {name} of each trial", 3.3)
    axis = drawing.axis
    if limit is not None:
        axis.axvline(limit, color=BAD, linewidth=1, linestyle=(0, (4, 3)))
        place = axis.get_xaxis_transform()
        axis.annotate("allowed", (limit, 1), xycoords=place, xytext=(-4, 4), textcoords="offset points",
                      color=BAD, fontsize=9, ha="right", annotation_clip=False)  # fmt: skip
    front = sorted((each.forgotten, each.record.score) for each in points if each.unbeaten)
    axis.step(*zip(*front, strict=True), where="post", color=ACCENT, linewidth=1, alpha=0.6) if front else None
    for each in points:
        record = each.record
        infeasible = record.state == "infeasible"
        color = BAD if infeasible else BASE if record.baseline else ACCENT if each.unbeaten else SOFT
        spread = {"xerr": each.error, "yerr": record.standard_error}
        axis.errorbar([each.forgotten], [record.score], **spread, color=color, elinewidth=0.8, alpha=0.6, zorder=1)
        (dot,) = axis.plot([each.forgotten], [record.score], "o", color=color, markersize=6,
                           markerfacecolor=color if each.unbeaten else PAPER)  # fmt: skip
        drawing.tip(dot, f"trial {record.number}, {record.state}: {name} {each.forgotten:.3g} {unit}, "
                         f"score {record.score:.3f}  {record.title}")  # fmt: skip
    axis.set_xlabel(f"{name}, {unit}\n(filled: no other trial is better in both)")
    axis.set_ylabel("score")
    return drawing.svg()


@matplotlib.rc_context(STYLE)
def ranks(found: Comparison) -> str:
    """Where each design that all pairs share ranks in each of them, and on average."""
    drawing = Drawing("ranks", "Ranks of the shared designs in each pair", max(3.0, height(found)))
    paint_ranks(
        drawing.axis,
        found,
        Look(ink=INK, pale=RULE, stripe=WASH, columns=2, label=18, axis="rank, 95 % interval"),
        drawing.tip,
    )
    return drawing.svg()


def _logarithmic(axis: Any) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
