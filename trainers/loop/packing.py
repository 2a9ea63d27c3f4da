"""Sequences of one forward pass in one row without padding: none sees another, and no gradient changes.

What all of them begin with, before anything is learnt, lies in the row once (`trainers/models/shared_prefix.py`).
Positions start over at each sequence, behind that. On a CPU each sequence then attends by itself
(`trainers/models/attention.py`); elsewhere transformers makes a block-diagonal mask of the positions, and
variable-length attention where the model uses flash attention. `pack` is checked against padding in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.utils.import_utils import is_flash_attn_2_available

from ..data.batches import Batch, Layout, collate, columns_of
from ..data.demonstrations import IGNORE_INDEX, Demonstration
from ..models.attention import by_sequence, separable
from ..models.head import decoder_of
from ..models.rms_norm import HALF, cached_norms

USEFUL = 0.95
"""In full precision padded batches with a larger share of useful positions stay padded."""
SHORTEST, LEFT = 4, 0.9
"""A prefix is shared from so many positions on, where at most this share of all positions is left to compute: where a
small model learns short sequences, the copies for attention take longer than less would spare."""
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
    examples: Sequence[Demonstration],
    indices: Sequence[int],
    pad_token_id: int,
    *,
    first_sequence: int = 0,
    prefix: int = 0,
) -> PackedBatch:
    """As `collate`, in one row: (1, positions of all sequences). Nothing is padded, so `pad_token_id` is not used.

    The first `prefix` positions, the same in all sequences, are those of the first one alone.
    """
    lengths = tuple(example.length for example in examples)

    def row(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([parts[0], *(part[prefix:] for part in parts[1:])])

    labels = row([example.labels for example in examples])
    numbers = [torch.full((length,), number) for number, length in enumerate(lengths)]
    return PackedBatch(
        inputs=row([example.inputs for example in examples])[None],
        labels=labels[None],
        positions=(labels != IGNORE_INDEX).nonzero().squeeze(1),
        indices=torch.tensor(list(indices)),
        first_sequence=first_sequence,
        lengths=lengths,
        prefix=prefix,
        position_ids=row([torch.arange(length) for length in lengths])[None],
        sequence_numbers=row(numbers),
        **{name: None if rows is None else row(rows)[None] for name, rows in columns_of(examples).items()},
    )


def common_prefix(examples: Sequence[Demonstration]) -> int:
    """Leading positions that all sequences share before anything is learnt, if they are worth it; else 0.

    A label sees a position of its own: the last prompt token of a sequence is never shared.
    """
    unlearnt = min(example.first_label for example in examples)
    rows = torch.stack([example.inputs[:unlearnt] for example in examples])
    alike = (rows == rows[0]).all(0).int()
    prefix = int(alike.cumprod(0).sum())
    total = sum(example.length for example in examples)
    left = total - prefix * (len(examples) - 1)
    return prefix if prefix >= SHORTEST and left <= LEFT * total else 0


def pack_or_pad(
    examples: Sequence[Demonstration],
    indices: Sequence[int],
    pad_token_id: int,
    *,
    first_sequence: int = 0,
    share: bool = True,
) -> Batch:
    """As `pack` where padding would be more than a little, else as `collate`: rows of one length need no cutting."""
    lengths = [example.length for example in examples]
    prefix = common_prefix(examples) if share else 0
    if sum(lengths) - prefix * (len(lengths) - 1) < USEFUL * len(lengths) * max(lengths):
        return pack(examples, indices, pad_token_id, first_sequence=first_sequence, prefix=prefix)
    return collate(examples, indices, pad_token_id, first_sequence=first_sequence)


def pack_round(
    examples: Sequence[Demonstration],
    indices: Sequence[int],
    pad_token_id: int,
    *,
    first_sequence: int = 0,
    share: bool = True,
) -> Batch:
    """As `pack`, or as `collate` where nothing is padded; packed rows are filled up by a sequence without labels.

    Cutting costs less than any padding where `block_attention.py` computes it. For each new shape of a half-precision
    product oneDNN compiles kernels, which takes as long as the product; round lengths come again.
    """
    prefix = common_prefix(examples) if share else 0
    if not prefix and len({example.length for example in examples}) == 1:
        return collate(examples, indices, pad_token_id, first_sequence=first_sequence)
    batch = pack(examples, indices, pad_token_id, first_sequence=first_sequence, prefix=prefix)
    missing = -batch.inputs.numel() % ROUND
    return _filled(batch, missing, pad_token_id) if 0 < missing <= FILLED * batch.inputs.numel() else batch


def _filled(batch: PackedBatch, more: int, pad_token_id: int) -> PackedBatch:
    assert batch.lengths is not None and batch.position_ids is not None and batch.sequence_numbers is not None
    known: dict[str, Any] = {
        name: pad(rows, (0, more)) for name in COLUMNS if (rows := getattr(batch, name)) is not None
    }
    return replace(
        batch,
        inputs=pad(batch.inputs, (0, more), value=pad_token_id),
        labels=pad(batch.labels, (0, more), value=IGNORE_INDEX),
        lengths=(*batch.lengths, batch.prefix + more),
        position_ids=torch.cat([batch.position_ids, batch.prefix + torch.arange(more)[None]], 1),
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
            lay_out = pack_round if all(next(each.parameters()).dtype in HALF for each in able) else pack_or_pad
            yield partial(lay_out, share=False) if any(map(_drops_out, able)) else lay_out


def _drops_out(model: nn.Module) -> bool:
    """Whether anything is dropped at random in training: of a shared prefix it would be the same for all sequences."""
    config = decoder_of(model).config.to_dict()  # some architectures drop out by a function, no module
    named = any("drop" in name and isinstance(value, float) and value for name, value in config.items())
    return named or any(isinstance(each, nn.Dropout) and each.p for each in model.modules())


def prepare_packing(model: nn.Module) -> str:
    """Choose the attention that packed rows are cheapest with; returns its name.

    Flash attention computes each sequence by itself; every other kind masks a square of all positions.
    """
    causal = cast(Any, model)
    weights = next(model.parameters())
    if weights.is_cuda and weights.dtype == torch.bfloat16 and is_flash_attn_2_available():
        causal.set_attn_implementation("flash_attention_2")
    return str(causal.config._attn_implementation)
