"""Which demonstrations each optimiser step sees, and how they are cut into forward passes.

The order is a function of (seed, number of demonstrations, effective batch) alone: not of the micro-batch, the number
of ranks or the target. Trials of a study therefore see the same data in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...spaces.errors import UserError
from ...spaces.identity import derive_seed
from .demonstrations import IGNORE_INDEX, Demonstration, Demonstrations

Layout = Callable[..., "Batch"]
"""Puts sequences of one forward pass together: examples, indices, pad token id, first_sequence."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of one forward pass, padded on the right.

    A causal model never sees a later position, so right padding needs no attention mask.
    """

    inputs: Tensor  # (sequences, positions)
    labels: Tensor  # (sequences, positions), IGNORE_INDEX where there is no loss
    positions: Tensor  # (T,) the positions with a loss, in the flattened batch
    indices: Tensor  # (sequences,) numbers of the demonstrations in the data
    first_sequence: int
    """Rank of the first sequence in the effective batch; sequence ids count from here."""
    critical: Tensor | None = None  # (sequences, positions) bool
    weights: Tensor | None = None  # (sequences, positions), how often each token counts
    reference_logprobs: Tensor | None = None  # (sequences, positions), of the label under a reference, nats
    position_ids: Tensor | None = None
    """(sequences, positions) where sequences are packed into one row, else None."""
    lengths: tuple[int, ...] | None = None
    """Positions of each sequence of a packed row, those that it shares included."""
    prefix: int = 0
    """Leading positions of a packed row that belong to all its sequences."""

    @property
    def content(self) -> tuple[object, ...]:
        """Equal for batches of the same demonstrations in the same places, in one data set."""
        return tuple(self.indices.tolist()), tuple(self.inputs.shape), self.lengths, self.prefix

    @property
    def read(self) -> tuple[Tensor, Tensor | None, tuple[int, ...] | None, int]:
        """What `hidden_states` takes of it: inputs, position ids, lengths, prefix."""
        return self.inputs, self.position_ids, self.lengths, self.prefix

    @property
    def valid(self) -> Tensor:
        """Positions with a loss, shape (sequences, positions) bool."""
        return self.labels != IGNORE_INDEX

    def select(self, values: Tensor) -> Tensor:
        """Entries of the T positions with a loss, (sequences, positions, ...) → (T, ...), without waiting for a GPU."""
        return values.flatten(0, 1).index_select(0, self.positions)

    @property
    def flat_labels(self) -> Tensor:
        """Labels of the T positions with a loss, shape (T,)."""
        return self.select(self.labels)

    @property
    def flat_critical(self) -> Tensor | None:
        """Critical mask of the T positions with a loss, shape (T,)."""
        return None if self.critical is None else self.select(self.critical)

    @property
    def flat_weights(self) -> Tensor | None:
        """How often each of the T positions with a loss counts, shape (T,)."""
        return None if self.weights is None else self.select(self.weights)

    @property
    def flat_reference_logprobs(self) -> Tensor | None:
        """What the data says of the label under a reference, at the T positions with a loss, shape (T,), nats."""
        return None if self.reference_logprobs is None else self.select(self.reference_logprobs)

    @property
    def sequence_ids(self) -> Tensor:
        """For each of the T positions with a loss the number of its sequence in the effective batch, shape (T,)."""
        return self.first_sequence + self.positions // self.labels.shape[1]

    def to(self, device: torch.device) -> Batch:
        """On another device, but for `indices`: whoever looks something up by them would wait for the device."""
        tensors: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if field.name != "indices" and isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


@dataclass(frozen=True, eq=False)
class EffectiveBatch:
    """The sequences of one optimiser step, longest first, so that neighbours need little padding."""

    step: int
    """Optimiser step, counted from 0."""
    indices: tuple[int, ...]
    examples: tuple[Demonstration, ...]
    pad_token_id: int
    layout: Layout | None = None
    """How sequences of a forward pass are put together; None: `collate`."""

    @property
    def num_tokens(self) -> int:
        """Tokens with a loss, over all micro-batches and ranks."""
        return sum(example.num_labels for example in self.examples)

    def tokens_of(self, batch: Batch) -> slice:
        """Where the tokens of one of its micro-batches lie among all tokens with a loss."""
        start = sum(example.num_labels for example in self.examples[: batch.first_sequence])
        return slice(start, start + len(batch.positions))

    def micro_batches(self, size: int, *, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """Every `ranks`-th slice of `size` sequences. All slices together hold the same tokens in the same order."""
        for start in range(rank * size, len(self.examples), ranks * size):
            stop = start + size
            lay_out = self.layout or collate
            yield lay_out(self.examples[start:stop], self.indices[start:stop], self.pad_token_id, first_sequence=start)


@dataclass(frozen=True, eq=False)
class BatchOrder:
    """Effective batches by optimiser step; each epoch is a fresh permutation of all demonstrations."""

    data: Demonstrations
    effective_batch: int
    seed: int
    pad_token_id: int
    layout: Layout | None = None

    def at(self, step: int) -> EffectiveBatch:
        """Sequences of optimiser step `step`, counted from 0."""
        first = step * self.effective_batch
        indices = [self._index(position) for position in range(first, first + self.effective_batch)]
        indices.sort(key=lambda index: (-self.data[index].length, index))
        examples = tuple(self.data[index] for index in indices)
        return EffectiveBatch(step, tuple(indices), examples, self.pad_token_id, self.layout)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.data))
        return int(_permutation(len(self.data), self.seed, epoch)[offset])


def micro_batch_of_rank(micro_batch: int, effective_batch: int, ranks: int) -> int:
    """Sequences of one forward pass: at most `micro_batch`, and such that all ranks make equally many passes.

    Raises UserError when the ranks cannot share an effective batch equally.
    """
    share, left = divmod(effective_batch, ranks)
    if left or not share:
        raise UserError(
            f"`effective_batch` must be a multiple of the number of ranks, but got {effective_batch} and {ranks}; "
            "change one of them",
            field="training.effective_batch",
        )
    return next(size for size in range(min(micro_batch, share), 0, -1) if share % size == 0)


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed("data order", seed, epoch))
    return torch.randperm(size, generator=generator)


def collate(
    examples: Sequence[Demonstration], indices: Sequence[int], pad_token_id: int, *, first_sequence: int = 0
) -> Batch:
    """Pad sequences on the right to the longest of them."""

    def stack(rows: list[Tensor], fill: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

    labels = stack([example.labels for example in examples], IGNORE_INDEX)
    known: dict[str, Any] = {
        name: None if rows is None else stack(rows, 0) for name, rows in columns_of(examples).items()
    }
    return Batch(
        inputs=stack([example.inputs for example in examples], pad_token_id),
        labels=labels,
        positions=(labels != IGNORE_INDEX).flatten().nonzero().squeeze(1),
        indices=torch.tensor(list(indices)),
        first_sequence=first_sequence,
        **known,
    )


def columns_of(examples: Sequence[Demonstration]) -> dict[str, list[Tensor] | None]:
    """What is known of the labels of some sequences, by name, one tensor a sequence; None for what is not."""
    found: dict[str, list[Tensor] | None] = {}
    for name in ("critical", "reference_logprobs"):
        known = [values for example in examples if (values := example.aligned(name)) is not None]
        found[name] = known if len(known) == len(examples) else None
    if any(example.weights is not None for example in examples):
        found["weights"] = [_or_once(example) for example in examples]
    return found


def _or_once(example: Demonstration) -> Tensor:
    weights = example.aligned("weights")
    return torch.ones(example.length) if weights is None else weights
