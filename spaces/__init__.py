"""Targets: trust and residual families, presets, ranges, identities. Knows pydantic; torch only inside functions."""

from . import presets
from .search_space import Point, SearchSpace
from .target import TargetSpec

__all__ = ["Point", "SearchSpace", "TargetSpec", "presets"]
