"""Tokenised demonstrations: what a fine-tune learns from, after templates, masks and length limits; what is kept of
each source, and how much of it where several are mixed by weight.

The labels are shifted here and nowhere else: `labels[t]` is the token that follows `inputs[t]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...spaces.errors import UserError
from .notes import Notes
from .style import Style

if TYPE_CHECKING:
    from ..settings import DataSettings

FIELD = "data"
IGNORE_INDEX = -100
"""Label of a position without a loss: prompt and padding."""


@dataclass(frozen=True, eq=False)
class Demonstration:
    """One sequence of n tokens; the loss looks at the tokens where `completion` is true."""

    token_ids: Tensor  # (n,) int32
    completion: Tensor  # (n,) bool
    critical: Tensor | None = None  # (n,) bool, tokens whose choice decides the answer
    weights: Tensor | None = None  # (n,) float32, how often each token counts; None: once. 0 is no loss at all
    reference_logprobs: Tensor | None = None  # (n,) float32, log-probability of each token under a reference, nats
    place: str = ""
    """Where its row stands, for messages: `line 7 of train.jsonl`. No part of its content."""

    @property
    def inputs(self) -> Tensor:
        """Tokens the model reads, shape (n - 1,)."""
        return self.token_ids[:-1].long()

    @property
    def labels(self) -> Tensor:
        """Token to predict after each input, `IGNORE_INDEX` where there is no loss, shape (n - 1,)."""
        return self.token_ids[1:].long().masked_fill(~self.learnt[1:], IGNORE_INDEX)

    @property
    def learnt(self) -> Tensor:
        """Tokens with a loss: those of the completion that count at all, shape (n,)."""
        return self.completion if self.weights is None else self.completion & (self.weights > 0)

    def aligned(self, name: str) -> Tensor | None:
        """One of `critical`, `weights` and `reference_logprobs`, aligned with `labels`, shape (n - 1,)."""
        values: Tensor | None = getattr(self, name)
        return None if values is None else values[1:]

    def cut(self, length: int) -> Demonstration:
        """The first `length` tokens."""
        tensors = {each.name: value for each in fields(self) if isinstance(value := getattr(self, each.name), Tensor)}
        parts: dict[str, Any] = {name: value[:length] for name, value in tensors.items()}
        return replace(self, **parts)

    @property
    def length(self) -> int:
        """Positions a forward pass computes: n - 1."""
        return len(self.token_ids) - 1

    @cached_property
    def num_labels(self) -> int:
        """Tokens with a loss."""
        return int(self.learnt[1:].sum())

    @cached_property
    def first_label(self) -> int:
        """The first position with a loss."""
        return int(self.learnt[1:].int().argmax())

    @cached_property
    def content(self) -> bytes:
        """Digest of token ids, labels and what else is known of each token."""
        digest = hashlib.sha256(len(self.token_ids).to_bytes(8, "little"))
        parts = (self.token_ids.int(), self.completion, self.critical)
        for part in parts:
            digest.update(b"-" if part is None else part.contiguous().numpy().tobytes())
        for name in ("weights", "reference_logprobs"):  # absent, they leave the digest as it was before they existed
            values: Tensor | None = getattr(self, name)
            if values is not None:
                digest.update(name.encode() + values.float().contiguous().numpy().tobytes())
        return digest.digest()


@dataclass(frozen=True, eq=False)
class Demonstrations(Sequence[Demonstration]):
    """The data of a fine-tune, with the count of what was left out."""

    examples: tuple[Demonstration, ...]
    num_rows: int
    """Rows read from the source."""
    num_too_long: int = 0
    """Rows left out for exceeding `max_length`."""
    num_without_loss: int = 0
    """Rows left out because their completion has no token."""
    style: Style = field(default_factory=Style)
    """How they ask, which is how tasks ask unless they say otherwise."""
    notes: tuple[str, ...] = ()
    """What is worth a look before a night is spent on them, a sentence each."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int -> Demonstration, slice -> tuple
        return self.examples[index]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.examples)

    def sequence(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of one demonstration, each of shape (positions,)."""
        return self.examples[index].inputs, self.examples[index].labels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over token ids, labels and masks, in order: equal fingerprints give equal batches."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(example.content)
        return digest.hexdigest()

    @cached_property
    def num_labels(self) -> int:
        """Tokens with a loss, over all demonstrations."""
        return sum(example.num_labels for example in self.examples)

    @property
    def has_critical(self) -> bool:
        return all(example.critical is not None for example in self.examples)

    @property
    def has_weights(self) -> bool:
        return any(example.weights is not None for example in self.examples)

    @property
    def has_reference_logprobs(self) -> bool:
        return all(example.reference_logprobs is not None for example in self.examples)

    def summary(self) -> str:
        """One line for people: what was kept and what was left out."""
        lengths = torch.tensor([len(example.token_ids) for example in self.examples])
        return (
            f"{len(self)} of {self.num_rows} demonstrations ({self.num_too_long} longer than `max_length`, "
            f"{self.num_without_loss} without a completion left out), {self.num_labels} completion tokens, "
            f"longest {int(lengths.max())} tokens, median {int(lengths.median())}{self._known()}"
        )

    def _known(self) -> str:
        """What the data say of each token, for people."""
        said = ""
        if self.has_weights:
            ones = (torch.ones(example.num_labels) for example in self.examples if example.weights is None)
            given = (each.weights[1:][each.learnt[1:]] for each in self.examples if each.weights is not None)
            weights = torch.cat([*given, *ones])
            said = f"; tokens count {float(weights.min()):.4g} to {float(weights.max()):.4g} times"
            said += f", {float(weights.mean()):.4g} on average"
        return said + ("; each with a log-probability under the reference" if self.has_reference_logprobs else "")


@dataclass(eq=False)
class Part:
    """What one source gives."""

    path: str
    weight: float | None
    examples: list[Demonstration] = field(default_factory=list)
    num_rows: int = 0
    num_too_long: int = 0
    num_without_loss: int = 0
    longest: tuple[int, str] = (0, "")
    """Tokens and place of the longest demonstration that was left out."""
    shortest: int = 0
    """Tokens of the shortest demonstration that was left out for its length; 0 where none was."""

    def take(self, examples: Iterable[Demonstration], max_length: int) -> None:
        """Keep what has a loss and fits, count the rest."""
        for example in examples:
            length = len(example.token_ids)
            if not example.num_labels:
                self.num_without_loss += 1
            elif length > max_length:
                self.num_too_long += 1
                self.longest = max(self.longest, (length, example.place))
                self.shortest = min(self.shortest or length, length)
            else:
                self.examples.append(example)


def chosen(parts: Sequence[Part], settings: DataSettings, notes: Notes) -> list[Demonstration]:
    """The demonstrations of all sources: by their weights where they have some, and at most `max_examples`.

    What is left out is drawn by a hash of content, so that neither order nor day decides. Raises UserError when
    nothing is left to choose from.
    """
    _refuse_nothing(parts, settings)
    _remark(parts, settings, notes)
    limit = settings.max_examples
    if parts[0].weight is None:
        return _drawn([example for part in parts for example in part.examples], limit, b"max_examples")
    counts = _shares(parts, limit)
    for part, count in zip(parts, counts, strict=True):
        notes.say(f"{part.path}: {count} of {len(part.examples)} demonstrations are used, by its weight")
    return [
        example
        for part, count in zip(parts, counts, strict=True)
        for example in _drawn(part.examples, count, f"mixture\0{part.path}\0".encode())
    ]


def _shares(parts: Sequence[Part], limit: int | None) -> list[int]:
    """As many of each as the weights allow before the first source runs out; none is repeated."""
    total = sum(part.weight or 0.0 for part in parts)
    shares = [(part.weight or 0.0) / total for part in parts]
    most = min(len(part.examples) / share for part, share in zip(parts, shares, strict=True))
    most = most if limit is None else min(most, limit)
    return [
        max(1, min(len(part.examples), round(most * share))) if part.examples else 0
        for part, share in zip(parts, shares, strict=True)
    ]


def _drawn(examples: list[Demonstration], count: int | None, name: bytes) -> list[Demonstration]:
    if count is None or count >= len(examples):
        return examples
    ranked = sorted(range(len(examples)), key=lambda number: hashlib.sha256(name + examples[number].content).digest())
    return [examples[number] for number in sorted(ranked[:count])]


def _refuse_nothing(parts: Sequence[Part], settings: DataSettings) -> None:
    bare = [part for part in parts if not part.examples]
    if not bare or (len(bare) < len(parts) and parts[0].weight is None):
        return
    part = bare[0]
    raise UserError(
        f"`max_length` must leave at least one demonstration, but all {part.num_rows} of {part.path} are longer than "
        f"max_length={settings.max_length} tokens or have an empty completion (the shortest has {part.shortest}); "
        "raise `max_length`",
        field=f"{FIELD}.max_length",
    )


def _remark(parts: Sequence[Part], settings: DataSettings, notes: Notes) -> None:
    """The share left out as too long, and demonstrations that are there more than once."""
    too_long, rows = sum(part.num_too_long for part in parts), sum(part.num_rows for part in parts)
    if too_long:
        length, place = max(part.longest for part in parts)
        notes.say(
            f"{too_long} of {rows} demonstrations ({100 * too_long / rows:.1f} %) are longer than max_length="
            f"{settings.max_length} tokens and left out (longest: {length} tokens, {place})"
        )
    seen: dict[bytes, str] = {}
    for example in (example for part in parts for example in part.examples):
        first = seen.setdefault(example.content, example.place)
        if first is not example.place:
            notes.count("a demonstration is there more than once, and learnt as often", example.place)
