"""Which problem belongs to which split, decided by its content alone.

The hash of the normalised question says "training", "search" or "report". So the splits cannot share a problem,
whatever the seed, the order of the rows, or the day they were generated. Files have a search and a report half; endless
sources (reasoning-gym) also set half of all questions aside for training demonstrations.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from ...spaces.identity import derive_seed

_LABEL = re.compile(r"^\W*[A-Za-z]+\s*:\s*")
_MIN_PART = 16  # characters; shorter lines ("Answer:", "Yes.") recur in texts that have nothing else in common


def content_hash(text: str) -> str:
    """SHA-256 (hex) of the text without case, compatibility forms and white space runs."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()


def training_hashes(texts: Iterable[str]) -> frozenset[str]:
    """Content hashes of training prompts: of each text, and of its paragraphs and lines with and without a label.

    A template in front of or behind a question ("Question: ...", "Think step by step.") then does not hide it.
    """
    hashes: set[str] = set()
    for text in texts:
        parts = [part for cut in ("\n\n", "\n") for part in text.split(cut) if len(part) >= _MIN_PART]
        hashes.update(content_hash(variant) for part in (text, *parts) for variant in (part, _LABEL.sub("", part)))
    return frozenset(hashes)


def is_for_training(question_hash: str) -> bool:
    """Whether an endless source keeps this question for demonstrations; true for one half of all questions."""
    return derive_seed("training", question_hash) % 2 == 0


def is_for_search(question_hash: str) -> bool:
    """Whether a question belongs to the search half; the others belong to the report half."""
    return derive_seed("search", question_hash) % 2 == 0


def allot(total: int, weights: Sequence[float]) -> list[int]:
    """Split `total` in proportion to the weights, by largest remainder."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts
