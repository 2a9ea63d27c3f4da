"""Every published objective as a named point of the space, with the knobs and defaults of its authors.

`names`, `get` and `table` are its public face.

lookup.py     every published objective as a named point of the space, with the knobs and defaults of its authors
latest.py     the table of objectives read last: peaks of trust, whole sequences, anchors at the label alone
published.py  the table of published objectives: how to build each, its knobs with their published values
variants.py   the table of objectives beyond the framework's own: other trust signals, batch statistics, signed terms
"""

from .lookup import PRESETS, get, names, table

__all__ = [
    "PRESETS",
    "get",
    "names",
    "table",
]
