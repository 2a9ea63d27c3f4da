"""Tokenised demonstrations: what a fine-tune learns from, after templates, masks and length limits.

The labels are shifted here and nowhere else: `labels[t]` is the token that follows `inputs[t]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .style import Style

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
