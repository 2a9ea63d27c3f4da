"""Tokenised demonstrations: what a fine-tune learns from, after templates, masks and length limits.

The labels are shifted here and nowhere else: `labels[t]` is the token that follows `inputs[t]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a position without a loss: prompt and padding."""


@dataclass(frozen=True, eq=False)
class Demonstration:
    """One sequence of n tokens; the loss looks at the tokens where `completion` is true."""

    token_ids: Tensor  # (n,) int32
    completion: Tensor  # (n,) bool
    critical: Tensor | None = None  # (n,) bool, tokens whose choice decides the answer

    @property
    def inputs(self) -> Tensor:
        """Tokens the model reads, shape (n - 1,)."""
        return self.token_ids[:-1].long()

    @property
    def labels(self) -> Tensor:
        """Token to predict after each input, `IGNORE_INDEX` where there is no loss, shape (n - 1,)."""
        return self.token_ids[1:].long().masked_fill(~self.completion[1:], IGNORE_INDEX)

    @property
    def critical_labels(self) -> Tensor | None:
        """Critical mask aligned with `labels`, shape (n - 1,)."""
        return None if self.critical is None else self.critical[1:]

    @property
    def length(self) -> int:
        """Positions a forward pass computes: n - 1."""
        return len(self.token_ids) - 1

    @cached_property
    def num_labels(self) -> int:
        """Tokens with a loss."""
        return int(self.completion[1:].sum())

    @cached_property
    def content(self) -> bytes:
        """Digest of token ids, labels and critical mask."""
        digest = hashlib.sha256(len(self.token_ids).to_bytes(8, "little"))
        parts = (self.token_ids.int(), self.completion, self.critical)
        for part in parts:
            digest.update(b"-" if part is None else part.contiguous().numpy().tobytes())
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
    rows: tuple[int, ...] = ()
    """Number of the row of each demonstration in its source."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int -> Demonstration, slice -> tuple
        return self.examples[index]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.examples)

    def name_of(self, index: int, source: str) -> str:
        """Where a demonstration comes from, for messages."""
        return f"row {self.rows[index]} of {source}" if self.rows else f"demonstration {index} of {source}"

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

    def summary(self) -> str:
        """One line for people: what was kept and what was left out."""
        lengths = torch.tensor([len(example.token_ids) for example in self.examples])
        return (
            f"{len(self)} of {self.num_rows} demonstrations ({self.num_too_long} longer than `max_length`, "
            f"{self.num_without_loss} without a completion left out), {self.num_labels} completion tokens, "
            f"longest {int(lengths.max())} tokens, median {int(lengths.median())}"
        )
