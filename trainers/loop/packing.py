"""Sequences of one forward pass in one row without padding: none sees another, and no gradient changes.

Positions start over at each sequence. On a CPU each sequence then attends by itself (`trainers/models/attention.py`);
elsewhere transformers makes a block-diagonal mask of the positions, and variable-length attention where the model uses
flash attention. `pack` is checked against padding in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.utils.import_utils import is_flash_attn_2_available

from ..data.batches import Batch, Layout, collate, columns_of
from ..data.demonstrations import IGNORE_INDEX, Demonstration
from ..models.attention import by_sequence, separable
from ..models.rms_norm import HALF, cached_norms

USEFUL = 0.95
"""In full precision padded batches with a larger share of useful positions stay padded."""
COLUMNS = ("critical", "weights", "reference_logprobs")
"""What is known of each position of a row."""
ROUND, FILLED = 32, 0.03
"""Packed rows in half precision are filled up to a multiple of so many positions; more than this share is too dear."""


@dataclass(frozen=True, eq=False)
class PackedBatch(Batch):
    """Sequences of one forward pass, one after the other in one row."""

    sequence_numbers: Tensor | None = None  # (positions,) rank of each position's sequence among them

    @property
    def sequence_ids(self) -> Tensor:
        assert self.sequence_numbers is not None
        return self.first_sequence + self.sequence_numbers.index_select(0, self.positions)


def pack(
    examples: Sequence[Demonstration], indices: Sequence[int], pad_token_id: int, *, first_sequence: int = 0
) -> PackedBatch:
    """As `collate`, in one row: (1, positions of all sequences). Nothing is padded, so `pad_token_id` is not used."""
    labels = torch.cat([example.labels for example in examples])
    lengths = tuple(example.length for example in examples)
    return PackedBatch(
        inputs=torch.cat([example.inputs for example in examples])[None],
        labels=labels[None],
        positions=(labels != IGNORE_INDEX).nonzero().squeeze(1),
        indices=torch.tensor(list(indices)),
        first_sequence=first_sequence,
        lengths=lengths,
        position_ids=torch.cat([torch.arange(example.length) for example in examples])[None],
        sequence_numbers=torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(lengths)),
        **{name: None if rows is None else torch.cat(rows)[None] for name, rows in columns_of(examples).items()},
    )


def pack_or_pad(
    examples: Sequence[Demonstration], indices: Sequence[int], pad_token_id: int, *, first_sequence: int = 0
) -> Batch:
    """As `pack` where padding would be more than a little, else as `collate`: rows of one length need no cutting."""
    lengths = [example.length for example in examples]
    lay_out = pack if sum(lengths) < USEFUL * len(lengths) * max(lengths) else collate
    return lay_out(examples, indices, pad_token_id, first_sequence=first_sequence)


def pack_round(
    examples: Sequence[Demonstration], indices: Sequence[int], pad_token_id: int, *, first_sequence: int = 0
) -> Batch:
    """As `pack`, or as `collate` where nothing is padded; packed rows are filled up by a sequence without labels.

    Cutting costs less than any padding where `block_attention.py` computes it. For each new shape of a half-precision
    product oneDNN compiles kernels, which takes as long as the product; round lengths come again.
    """
    lay_out = pack if len({example.length for example in examples}) > 1 else collate
    batch = lay_out(examples, indices, pad_token_id, first_sequence=first_sequence)
    missing = -batch.inputs.numel() % ROUND
    fits = isinstance(batch, PackedBatch) and 0 < missing <= FILLED * batch.inputs.numel()
    return _filled(cast(PackedBatch, batch), missing, pad_token_id) if fits else batch


def _filled(batch: PackedBatch, more: int, pad_token_id: int) -> PackedBatch:
    assert batch.lengths is not None and batch.position_ids is not None and batch.sequence_numbers is not None
    known: dict[str, Any] = {
        name: pad(rows, (0, more)) for name in COLUMNS if (rows := getattr(batch, name)) is not None
    }
    return replace(
        batch,
        inputs=pad(batch.inputs, (0, more), value=pad_token_id),
        labels=pad(batch.labels, (0, more), value=IGNORE_INDEX),
        lengths=(*batch.lengths, more),
        position_ids=torch.cat([batch.position_ids, torch.arange(more)[None]], 1),
        sequence_numbers=pad(batch.sequence_numbers, (0, more), value=len(batch.lengths)),
        **known,
    )


@contextmanager
def laid_out(models: Sequence[nn.Module], layout: Layout | None) -> Iterator[Layout | None]:
    """The layout of a training that all these models take part in: `layout`, or the cheapest that all of them allow."""
    able = [model for model in models if separable(model)]
    with by_sequence(able), cached_norms(able):
        if layout is not None or len(able) < len(models):
            yield layout
        else:
            yield pack_round if all(next(each.parameters()).dtype in HALF for each in able) else pack_or_pad


def prepare_packing(model: nn.Module) -> str:
    """Choose the attention that packed rows are cheapest with; returns its name.

    Flash attention computes each sequence by itself; every other kind masks a square of all positions.
    """
    causal = cast(Any, model)
    weights = next(model.parameters())
    if weights.is_cuda and weights.dtype == torch.bfloat16 and is_flash_attn_2_available():
        causal.set_attn_implementation("flash_attention_2")
    return str(causal.config._attn_implementation)
