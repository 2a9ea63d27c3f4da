"""What a design may look at: one batch of token rows, everything detached.

Letters: T tokens (valid labels only), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Per-token scalars, enough for every trust rule that looks at labels only (also across a whole batch)."""

    label_logprobs: Tensor  # (T,) log π(y), nats
    teacher_label_logprobs: Tensor | None = None  # (T,) nats
    reference_label_logprobs: Tensor | None = None  # (T,) nats
    old_logprobs: Tensor | None = None  # (T,) log π_old(y), nats
    critical: Tensor | None = None  # (T,) bool
    sequence_ids: Tensor | None = None  # (T,) int, which sequence each token belongs to

    @cached_property
    def label_probs(self) -> Tensor:
        """p = π(y), shape (T,)."""
        return self.label_logprobs.exp()


@dataclass(frozen=True, eq=False)
class Rows(LabelRows):
    """Label scalars plus the dense rows of one chunk of tokens."""

    logits: Tensor | None = None  # (T, V) student logits z, detached, float32 or float64
    logprobs: Tensor | None = None  # (T, V) log π, nats
    labels: Tensor | None = None  # (T,)
    teacher_logprobs: Tensor | None = None  # (T, V) nats
    reference_logprobs: Tensor | None = None  # (T, V) nats
    real_vocab: int | None = None
    """Entries the tokenizer can produce; head rows from here on are padding. None: all V are real."""
