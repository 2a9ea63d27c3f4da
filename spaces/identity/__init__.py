"""Names by content: seeds, canonical JSON, ids of designs, and which designs are provably the same gradient.

Two designs with one canonical id are never trained twice.

rewrite.py          one way to write each design: rewriting rules that keep the gradient
rewrite_gamma.py    rewriting rules of γ alone: families that coincide at some knobs, modifiers that cannot act,
                    factors
equivalents.py      other ways to write a design that keep its gradient
names.py            names by content: seeds, canonical JSON, and the ids of designs
"""

from .names import canonical, canonical_id, canonical_json, content_id, derive_seed, spec_id

__all__ = [
    "canonical",
    "canonical_id",
    "canonical_json",
    "content_id",
    "derive_seed",
    "spec_id",
]
