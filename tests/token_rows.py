"""Rows of tokens to check target losses on: ordinary ones, and the ones that break arithmetic.

Letters: T tokens, V vocabulary. Everything is float64; `to(dtype)` rounds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from qtarget.spaces.identity import derive_seed


@dataclass(frozen=True)
class TokenRows:
    """Logits and everything that a design may look at."""

    logits: Tensor  # (T, V)
    labels: Tensor  # (T,)
    teacher_logits: Tensor  # (T, V)
    reference_logits: Tensor  # (T, V)
    old_logprobs: Tensor  # (T,)
    critical: Tensor  # (T,)
    sequence_ids: Tensor  # (T,)
    previous_logits: Tensor  # (T, V)

    def inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of a target loss."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("logits", "labels")
        }

    def to(self, dtype: torch.dtype) -> TokenRows:
        """The same rows with floating point columns rounded to `dtype`."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return TokenRows(**{name: _cast(column, dtype) for name, column in columns.items()})

    def with_(self, **columns: Any) -> TokenRows:
        """The same rows with some columns replaced."""
        return replace(self, **columns)

    def finite(self, very_negative: float = -1e30) -> TokenRows:
        """−∞ as a logit so low that its probability is exactly 0: the same distributions, arithmetic without ∞."""
        return self.with_(
            logits=self.logits.clamp(min=very_negative),
            teacher_logits=self.teacher_logits.clamp(min=very_negative),
            reference_logits=self.reference_logits.clamp(min=very_negative),
            previous_logits=self.previous_logits.clamp(min=very_negative),
        )


@contextmanager
def noting(*names: str) -> Iterator[None]:
    """Says in which of many cases of one test something failed."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {', '.join(names)}")
        raise


def random_rows(name: str, tokens: int = 24, vocab: int = 11, scale: float = 2.0) -> TokenRows:
    """Gaussian logits; a student that is near its reference; three sequences; some tokens masked."""
    generator = torch.Generator().manual_seed(derive_seed("rows", name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logits = scale * normal(tokens, vocab)
    labels = torch.randint(vocab, (tokens,), generator=generator)
    label_logprobs = logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    labels[::7] = -100
    return TokenRows(
        logits=logits,
        labels=labels,
        teacher_logits=scale * normal(tokens, vocab),
        reference_logits=logits + normal(tokens, vocab),
        old_logprobs=(label_logprobs + 0.5 * normal(tokens)).clamp(max=0),
        critical=torch.rand(tokens, generator=generator) < 0.5,
        sequence_ids=torch.arange(tokens) * 3 // tokens,
        previous_logits=logits + 0.5 * normal(tokens, vocab),
    )


def edge_rows(vocab: int = 7) -> TokenRows:
    """One row for each way to be difficult: p = 0, p = 1, one-hot elsewhere, ties, huge logits, −∞ logits, masked."""
    rows = random_rows(f"edges {vocab}", tokens=12, vocab=vocab, scale=3.0)
    logits, teacher, labels = rows.logits.clone(), rows.teacher_logits.clone(), rows.labels.clone()
    labels[:] = 1
    labels[11] = -100
    logits[0, 1] = -torch.inf  # p = 0
    logits[1] = -torch.inf  # p = 1 exactly
    logits[1, 1] = 0.3
    logits[2] = -torch.inf  # one-hot on another token: p = 0
    logits[2, 0] = 1.0
    logits[3] = 0.0  # all tie
    logits[4] = 1e3 * logits[4].sign()  # beyond exp's range without a shift
    logits[5, 2 % vocab] = -torch.inf  # a token ruled out that is not the label
    logits[6, 1] = logits[6].logsumexp(0) + 30  # p = 1 − 10⁻¹³
    logits[7, 1] = logits[7].max() - 60  # p = 10⁻²⁶
    teacher[8, 0] = -torch.inf  # the teacher rules a token out
    teacher[9] = -torch.inf  # the teacher is certain of the label
    teacher[9, 1] = 2.0
    teacher[10, 1] = -torch.inf  # the teacher rules the label out
    return rows.with_(logits=logits, teacher_logits=teacher, labels=labels)


def _cast(column: Tensor, dtype: torch.dtype) -> Tensor:
    return column.to(dtype) if column.is_floating_point() else column
