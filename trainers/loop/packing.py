"""Sequences of one forward pass in one row without padding: none sees another, and no gradient changes.

Positions start over at each sequence. Without an attention mask, transformers makes of that a block-diagonal mask, and
variable-length attention where the model uses flash attention; `pack` is checked against padding in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.utils.import_utils import is_flash_attn_2_available

from ..data.batches import Batch, columns_of
from ..data.demonstrations import IGNORE_INDEX, Demonstration


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
    lengths = torch.tensor([example.length for example in examples])
    return PackedBatch(
        inputs=torch.cat([example.inputs for example in examples])[None],
        labels=labels[None],
        positions=(labels != IGNORE_INDEX).nonzero().squeeze(1),
        indices=torch.tensor(list(indices)),
        first_sequence=first_sequence,
        position_ids=torch.cat([torch.arange(example.length) for example in examples])[None],
        sequence_numbers=torch.repeat_interleave(torch.arange(len(examples)), lengths),
        **{name: None if rows is None else torch.cat(rows)[None] for name, rows in columns_of(examples).items()},
    )


def prepare_packing(model: nn.Module) -> str:
    """Choose the attention that packed rows are cheapest with; returns its name.

    Flash attention computes each sequence by itself; every other kind masks a square of all positions.
    """
    causal = cast(Any, model)
    weights = next(model.parameters())
    if weights.is_cuda and weights.dtype == torch.bfloat16 and is_flash_attn_2_available():
        causal.set_attn_implementation("flash_attention_2")
    return str(causal.config._attn_implementation)
