"""The space that knows the field: every family, each with the knobs that its authors chose among what is searched."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..presets import get, names
from ..target import TargetSpec

if TYPE_CHECKING:
    from .space import SearchSpace

FROM_BASE = {"options": ["student", "reference"]}
"""Who supplies the trust signal, where authors differ."""
EVERYTHING: dict[str, Any] = {
    "gamma": {
        "constant": {},
        "power": {"source": FROM_BASE},
        "threshold": {"source": FROM_BASE},
        "soft_threshold": {},
        "anchored": {"exponent": {"options": [0.0, 1.0]}},
        "bump": {},
        "shaping": {},
        "information": {},
        "margin": {},
        "focal": {},
        "tilt": {"source": "reference"},
        "topk_entropy": {},
        "concentration_power": {},
        "surprise_power": {},
        "mass": {"source": "reference"},
        "diversity": {},
        "likelihood_ratio": {},
        "sigmoid_ratio": {},
        "gap": {},
        "label_penalty": {"exponent": {"options": [0.0, 1.0]}},
        "tempered_penalty": {},
        "proximal": {},
        "critical": {},
        "median_power": {},
        "sequence_outlier": {},
        "tempered_likelihood": {"source": "reference", "level": {"options": ["sequence", "token"]}},
        "cayley_power": {},
        "median_cap": {},
        "rank": {},
    },
    "residual": {"student": {}, "uniform": {}, "geometric": {"temperature": "search"}},
    "contrast": {
        "none": {},
        "gem": {"link": {"options": ["linear", "logsigmoid"]}},
        "reverse_kl": {},
        "plateau": {},
        "entropy_bonus": {},
    },
    "weight": {"unit": {}, "anchored": {}},
}
"""Its parts; the training knobs are those of any space."""
SPACES: dict[str, dict[str, Any]] = {"everything": EVERYTHING}
"""Spaces with a name."""


def starts(space: SearchSpace, available: Collection[str]) -> dict[str, TargetSpec]:
    """Where each group of families starts: the first published objective of it that lies in the space, by its preset.

    A group is what is drawn together: families of γ, residual (where one acts), signed term and weight.
    """
    found: dict[tuple[str, ...], tuple[str, TargetSpec]] = {}
    for name in names():
        target = get(name)
        if target.needs <= set(available) and space.holds(target):
            found.setdefault(_group(target), (name, target))
    return dict(found.values())


def _group(target: TargetSpec) -> tuple[str, ...]:
    residual = target.residual.kind if target.residual_acts else ""
    contrast = target.contrast.kind if target.contrast else ""
    return target.gamma.kind, residual, contrast, target.weight.kind
