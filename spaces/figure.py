"""One small picture of each objective: how far it trusts the label, the target it induces, and how hard it pushes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import presets
from .curves import PREVIOUS, REFERENCE, TEACHER, curves
from .errors import UserError
from .target import TargetSpec

COLUMNS = 6
LOW, HIGH = -0.45, 1.55
"""Limits of every panel, so that panels can be compared; what leaves them is cut off."""
INK, PALE, TARGET, UP, DOWN = "#222222", "#9a9a9a", "#0072b2", "#e69f00", "#b2182b"
FORMATS = (".png", ".svg", ".pdf")


def draw(path: str | Path, designs: Mapping[str, TargetSpec] | None = None) -> None:
    """Write a figure of `designs` (default: every preset at its published knobs) to a PNG, SVG or PDF file.

    Raises:
        UserError: the file's name does not end in .png, .svg or .pdf.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"the figure's name must end in {', '.join(FORMATS)}, but got {path.name!r}; rename it")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    specs = dict(designs or {name: presets.get(name) for name in presets.names()})
    rows = math.ceil((len(specs) + 1) / COLUMNS)
    figure = Figure(figsize=(2.75 * COLUMNS, 2.5 * rows + 0.3), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08))
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
    _legend(axes[0])
    for panel, (name, spec) in zip(axes[1:], specs.items(), strict=False):
        _panel(panel, name, spec)
    for empty in axes[len(specs) + 1 :]:
        empty.set_axis_off()
    for panel in axes[max(1, len(specs) + 1 - COLUMNS) : len(specs) + 1]:  # those with nothing below them
        panel.tick_params(labelbottom=True)
    axes[1].tick_params(labelleft=True)
    figure.savefig(path, dpi=150)


def _panel(panel: Any, name: str, spec: TargetSpec) -> None:
    found = curves(spec)
    p, push = found.p.numpy(), found.push.numpy()
    panel.axhline(0, color=PALE, linewidth=0.6)
    panel.plot([0, 1], [0, 1], color=PALE, linewidth=0.8, linestyle=(0, (1, 2)))
    panel.fill_between(p, push, 0, where=push >= 0, color=UP, alpha=0.45, linewidth=0)
    panel.fill_between(p, push, 0, where=push <= 0, color=DOWN, alpha=0.45, linewidth=0)
    panel.plot(p, found.label_target.numpy(), color=TARGET, linewidth=1.8)
    panel.plot(p, found.gamma.numpy(), color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    _frame(panel)
    panel.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK, pad=16)
    subtitle = panel.text(0, 1.03, _subtitle(name, spec), transform=panel.transAxes, fontsize=7.2, color="#555555")
    subtitle.set_in_layout(False)  # a long formula must not narrow its column


def _frame(panel: Any) -> None:
    panel.set_xlim(0, 1)
    panel.set_ylim(LOW, HIGH)
    panel.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    panel.set_yticks([0, 0.5, 1, 1.5], ["0", "½", "1", "1½"])
    panel.tick_params(length=2, labelsize=8, labelcolor="#555555", color=PALE)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(PALE)


def _subtitle(name: str, spec: TargetSpec) -> str:
    """The loss of a preset, its knobs at their values; the title of any other design."""
    known = {row["name"]: row for row in presets.table()}
    if name not in known:
        return spec.title()
    knobs = ", ".join(f"{knob} {value:g}" for knob, value in known[name]["knobs"].items())
    return f"{known[name]['loss']}   [{knobs}]" if knobs else str(known[name]["loss"])


def _legend(panel: Any) -> None:
    """The first panel explains the others."""
    panel.set_axis_off()
    lines = [
        (TARGET, "-", 1.8, "Q(y): the target's mass on the label,\nread with outer weight 1"),
        (INK, (0, (4, 2)), 1.1, "γ: trust in the label"),
        (PALE, (0, (1, 2)), 0.8, "p itself: a target here teaches nothing"),
    ]
    heights = (1.42, 1.06, 0.86)
    for (color, style, width, text), height in zip(lines, heights, strict=True):
        panel.plot([0, 0.1], [height, height], color=color, linestyle=style, linewidth=width)
        panel.text(0.14, height, text, fontsize=7.6, va="center", color=INK)
    for color, height, text in (
        (UP, 0.62, "push on its logit, −∂ℓ/∂z(y): upwards"),
        (DOWN, 0.42, "downwards, where Q(y) < p"),
    ):
        panel.fill_between([0, 0.1], height - 0.06, height + 0.06, color=color, alpha=0.45, linewidth=0)
        panel.text(0.14, height, text, fontsize=7.6, va="center", color=INK)
    others = f"reference {REFERENCE:g}, previous {PREVIOUS:g}, teacher {TEACHER:g}"
    scene = f"across: p, the student's probability\nof the label; under the others it is\n{others}"
    panel.text(0, 0.2, scene, fontsize=7.6, va="top", color="#555555")
