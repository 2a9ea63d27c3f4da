"""What MLflow takes for a name and for a value; everything else is written so that it takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

NAME_LIMIT, TAG_LIMIT, PARAM_LIMIT = 250, 5000, 6000
"""Characters that every version in use accepts."""
_REFUSED = re.compile(r"[^/\w.\- ]|_(?=x[0-9a-f]+_)")
_DIGEST = 12


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; None and empty values are left out."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        elif item not in (None, [], (), ""):
            flat[f"{prefix}{key}"] = item
    return flat


def fitting_name(name: str) -> str:
    """`name` for a metric or parameter: refused characters as `_x3d_` (hexadecimal), what is too long cut and hashed.

    Different names stay different, and a name that MLflow takes stays as it is.
    """
    plain = _REFUSED.sub(lambda found: _escaped(found[0]), name)
    # it is a path to MLflow, and may not be another way to write one
    parts = ["".join(map(_escaped, part)) if part in (".", "..") else part or "_x_" for part in plain.split("/")]
    fitting = "/".join(parts)
    if len(fitting) <= NAME_LIMIT:
        return fitting
    return (
        f"{fitting[: NAME_LIMIT - _DIGEST - 1]}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGEST]}"
    )


def _escaped(character: str) -> str:
    return f"_x{ord(character):x}_"


def fitting_text(value: object, limit: int) -> str:
    """A value as text that every database holds, cut to `limit` characters."""
    return str(value).replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")[:limit]
