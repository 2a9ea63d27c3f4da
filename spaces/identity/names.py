"""Names by content: seeds, canonical JSON, and the ids of designs.

Two designs with the same `spec_id` are written the same; with the same `canonical_id` they train the same.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from ..target import TargetSpec
from .rewrite import canonical

__all__ = ["canonical", "canonical_id", "canonical_json", "content_id", "derive_seed", "spec_id"]

SEED_BITS = 63
"""Every seeding function of torch, numpy and the standard library takes a seed of this size."""


def derive_seed(*names: object) -> int:
    """A seed in [0, 2⁶³) from the text of `names`: equal names, equal seed, and no arithmetic relates two seeds."""
    digest = hashlib.sha256(canonical_json([str(name) for name in names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def canonical_json(obj: Any) -> str:
    """JSON with sorted keys and no spaces; floats as their shortest exact text. ValueError for what JSON cannot say."""
    try:
        return json.dumps(
            _plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
        )
    except TypeError as error:
        raise ValueError(f"content must be made of JSON types and settings models, but {error}") from error


def content_id(obj: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a settings model, dictionary or list."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()


def spec_id(spec: TargetSpec) -> str:
    """The id of a design as it is written."""
    return content_id(spec)


def canonical_id(spec: TargetSpec) -> str:
    """The id of what a design trains: equal for designs whose gradients are provably equal."""
    return content_id(canonical(spec))


def _plain(obj: Any) -> Any:
    if isinstance(obj, BaseModel):
        return obj.model_dump(mode="json")
    if isinstance(obj, dict | list | tuple | str | int | float | None):
        return obj
    raise TypeError(f"got {type(obj).__name__}")
