"""Every published objective as a named point of the space, with the knobs and defaults of its authors."""

from __future__ import annotations

from typing import Any

from ..target import TargetSpec
from .latest import LATEST
from .published import OBJECTIVES, Preset
from .variants import VARIANTS

PRESETS = OBJECTIVES | VARIANTS | LATEST


def names() -> list[str]:
    """The names of all presets."""
    return list(PRESETS)


def get(name: str, **knobs: float) -> TargetSpec:
    """The preset `name`, its knobs at the published defaults unless given.

    Raises:
        ValueError: an unknown preset or knob, or a knob out of validity.
    """
    preset = _preset(name)
    unknown = sorted(set(knobs) - set(preset.knobs))
    if unknown:
        known = ", ".join(preset.knobs) or "none"
        raise ValueError(f"preset {name!r} has no knob {unknown[0]!r}; its knobs: {known}")
    values = {knob: rule.check(knob, knobs.get(knob, rule.default), name) for knob, rule in preset.knobs.items()}
    return preset.build(**values)


def table() -> list[dict[str, Any]]:
    """One row a preset, ready for JSON: name, title, gamma, residual, weight, loss, knobs, recommended, needs, source,
    and the day on which the source was read."""
    return [
        {
            "name": name,
            "title": preset.title,
            "gamma": preset.gamma,
            "residual": preset.residual,
            "weight": preset.weight,
            "loss": preset.loss,
            "knobs": {knob: rule.default for knob, rule in preset.knobs.items()},
            "recommended": {
                knob: rule.recommended for knob, rule in preset.knobs.items() if rule.recommended is not None
            },
            "needs": sorted(get(name).needs),
            "source": preset.source,
            "read": preset.read,
        }
        for name, preset in PRESETS.items()
    ]


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]
