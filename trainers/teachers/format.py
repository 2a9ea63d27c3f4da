"""On-disk form of a teacher's next-token distributions: the key, the packed shards, the manifest. Free of torch.

A cache is a folder of shards and, written last, `manifest.json`. One shard covers consecutive demonstrations. It is
little-endian, its sections lie back to back, each padded to 8 bytes. N demonstrations, T valid tokens, E kept entries:

    lengths    N x uint32     valid tokens of each demonstration
    counts     T x uint16     kept entries of each token, at most k
    scalars    3 x T x float  log tail mass, entropy, log-prob of the label, nats
    logprobs   E x float      kept log-probs, descending within a token, nats
    ids        E x `bits` bits packed from the lowest bit up, `bits` = what the vocabulary needs; 8 spare bytes after

`float` is the key's dtype. At k = 64, float16 and a vocabulary of 151,936 (18 bits) a token takes 280 bytes.

Where designs look at the label alone (`content: label`), a shard has `lengths` and one row of scalars, the label's
log-probs: two bytes a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ...spaces.settings import GrownSettings, Settings

Array = npt.NDArray[Any]

SPARE_ID_BYTES = 8
"""Let an id be read as four whole bytes wherever it starts."""
MAX_ID_BITS = 25
"""An id that starts at bit 7 of a byte must end within four bytes."""
REBUILD = "build it with `qtarget cache build STUDY.yaml`"


class CacheError(UserError):
    """The cache is missing, stale, torn or unusable; the message says which, and what to run."""


class CacheKey(GrownSettings):
    """Everything that decides the numbers in a cache. Equal keys may share one."""

    model: str
    """Content hash of the teacher's weights and configuration."""
    tokenizer: str
    """Content hash of the tokenizer."""
    data: str
    """Fingerprint of the tokenised demonstrations."""
    template: str
    """Content hash of the chat template."""
    max_length: Annotated[int, Field(ge=2)]
    """Tokens a demonstration, prompt included."""
    vocab: Annotated[int, Field(ge=2, le=2**MAX_ID_BITS)]
    """Entries the tokenizer can produce; the teacher's softmax runs over these, padding rows of its head left out."""
    k: Annotated[int, Field(ge=1, le=2**16 - 1)] = 64
    """Most entries kept for a token."""
    tail_mass: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep only as many entries as leave this much probability in the tail; 0: no such limit."""
    min_prob: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep only entries at least this probable, and always the first; 0: no such limit."""
    dtype: Literal["float16", "float32"] = "float16"
    """Storage of log-probs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the teacher's forward pass."""
    content: Literal["rows", "label"] = "rows"
    """What is kept of a token: its most probable entries, or the label's log-prob alone."""

    LATER: ClassVar[frozenset[str]] = frozenset({"content"})

    @property
    def id(self) -> str:
        return content_id(self)

    @property
    def bits(self) -> int:
        """Bits of one token id."""
        return (self.vocab - 1).bit_length()

    @property
    def adaptive(self) -> bool:
        """Whether tokens keep different numbers of entries."""
        return self.tail_mass > 0 or self.min_prob > 0

    @property
    def entries(self) -> int:
        """Most entries a token can have."""
        return min(self.k, self.vocab)

    @property
    def max_bytes_per_token(self) -> float:
        """Bytes of a token that keeps all its entries."""
        width = np.dtype(self.dtype).itemsize
        if self.content == "label":
            return width
        return 2 + 3 * width + self.entries * (width + self.bits / 8)

    def differences(self, other: CacheKey) -> list[str]:
        """Names of the fields in which two keys differ."""
        return [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]


class ShardEntry(Settings):
    """What the manifest says about one shard."""

    name: str
    first: int
    """First demonstration in it."""
    examples: int
    tokens: int
    entries: int
    tail_mass: float
    """Sum over its tokens of the probability left in the tail."""
    bytes: int
    sha256: str


class Manifest(Settings):
    """Presence means that every shard is complete."""

    format: Literal[1] = 1
    key: CacheKey
    shards: tuple[ShardEntry, ...]

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.tokens)

    @property
    def entries_per_token(self) -> float:
        return sum(shard.entries for shard in self.shards) / max(1, self.tokens)

    @property
    def mean_tail_mass(self) -> float:
        return sum(shard.tail_mass for shard in self.shards) / max(1, self.tokens)


@dataclass(frozen=True, eq=False)
class ShardArrays:
    """One shard, unpacked but for its ids."""

    lengths: Array  # (N,)
    counts: Array  # (T,)
    scalars: Array  # (3, T) log tail mass, entropy, label log-prob; (1, T) label log-prob where that is all
    logprobs: Array  # (E,)
    ids: Array  # packed bytes


def _sections(key: CacheKey, examples: int, tokens: int, entries: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    float_type = np.dtype(key.dtype).newbyteorder("<").str
    yield "lengths", "<u4", (examples,)
    if key.content == "label":
        yield "scalars", float_type, (1, tokens)
        return
    yield "counts", "<u2", (tokens,)
    yield "scalars", float_type, (3, tokens)
    yield "logprobs", float_type, (entries,)
    yield "ids", "|u1", (packed_bytes(entries, key.bits),)


def packed_bytes(entries: int, bits: int) -> int:
    """Bytes of `entries` packed ids, spare bytes included."""
    return (entries * bits + 7) // 8 + SPARE_ID_BYTES


def pack_ids(ids: Array, bits: int) -> Array:
    """Pack ids (E,) into bytes: id e occupies bits [e*bits, (e+1)*bits), lowest first."""
    groups = -(-len(ids) // 8)  # eight ids fill `bits` bytes exactly
    padded = np.zeros(groups * 8, np.uint32)
    padded[: len(ids)] = ids
    columns = padded.reshape(groups, 8)
    packed = np.zeros((groups, bits + 4), np.uint8)
    for place in range(8):
        byte, shift = divmod(place * bits, 8)
        word = columns[:, place] << np.uint32(shift)
        for step in range(-(-(shift + bits) // 8)):
            packed[:, byte + step] |= (word >> np.uint32(8 * step)).astype(np.uint8)
    out = np.zeros(packed_bytes(len(ids), bits), np.uint8)
    stream = packed[:, :bits].reshape(-1)[: len(out) - SPARE_ID_BYTES]
    out[: len(stream)] = stream
    return out


def unpack_ids(packed: Array, entries: Array, bits: int) -> Array:
    """Ids (n,) int64 at positions `entries` (n,) of the packed stream."""
    start = entries.astype(np.int64) * bits
    byte = start >> 3
    word = packed[byte].astype(np.uint32)
    for step in range(1, 4):
        word |= packed[byte + step].astype(np.uint32) << np.uint32(8 * step)
    ids: Array = ((word >> (start & 7).astype(np.uint32)) & np.uint32(2**bits - 1)).astype(np.int64)
    return ids


def encode(key: CacheKey, arrays: ShardArrays) -> Iterator[bytes]:
    """The sections of a shard, in order, each padded to 8 bytes."""
    sizes = (len(arrays.lengths), len(arrays.counts), len(arrays.logprobs))
    for name, dtype, shape in _sections(key, *sizes):
        data = np.ascontiguousarray(getattr(arrays, name), dtype=dtype).reshape(shape).tobytes()
        yield data + bytes(-len(data) % 8)


def shard_bytes(key: CacheKey, examples: int, tokens: int, entries: int) -> int:
    """Size of a shard's file."""
    sections = _sections(key, examples, tokens, entries)
    return sum(-(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 8) * 8 for _, dtype, shape in sections)


def decode(key: CacheKey, entry: ShardEntry, data: Array) -> ShardArrays:
    """Views into a shard's bytes (bytes,) uint8; nothing is copied."""
    views: dict[str, Array] = {}
    offset = 0
    for name, dtype, shape in _sections(key, entry.examples, entry.tokens, entry.entries):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        views[name] = data[offset : offset + size].view(dtype).reshape(shape)
        offset += -(-size // 8) * 8
    if key.content == "label":
        nothing = np.zeros(0, np.uint8)
        views |= {"counts": np.zeros(entry.tokens, np.uint16), "logprobs": nothing, "ids": nothing}
    return ShardArrays(**views)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
