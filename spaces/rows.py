"""What a design may look at: one batch of token rows, everything detached.

Letters: T tokens (valid labels only), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Source = Literal["student", "reference", "teacher"]
"""Whose distribution is asked."""


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Per-token scalars, enough for every trust rule that looks at labels only (also across a whole batch)."""

    label_logprobs: Tensor  # (T,) log π(y), nats
    teacher_label_logprobs: Tensor | None = None  # (T,) nats
    reference_label_logprobs: Tensor | None = None  # (T,) nats
    old_logprobs: Tensor | None = None  # (T,) log π_old(y), nats
    critical: Tensor | None = None  # (T,) bool
    sequence_ids: Tensor | None = None  # (T,) int, which sequence each token belongs to
    weights: Tensor | None = None  # (T,) how often each token counts, from the data; None: once
    label_margins: Tensor | None = None  # (T,) z_y − max over v ≠ y of z_v of the student, nats

    @cached_property
    def label_probs(self) -> Tensor:
        """p = π(y), shape (T,)."""
        return self.label_logprobs.exp()

    def label_logprobs_of(self, source: Source) -> Tensor:
        """Log-probability of the label under `source`, shape (T,), nats; ValueError when it was not given."""
        if source == "student":
            return self.label_logprobs
        return self.given(f"{source}_label_logprobs", source)

    def margins(self) -> Tensor:
        """z_y − max over v ≠ y of z_v of the student, shape (T,), nats."""
        return self.given("label_margins", "student")

    def given(self, field: str, need: str) -> Tensor:
        """The optional tensor `field`, or a ValueError that names the missing input `need`."""
        value: Tensor | None = getattr(self, field, None)
        if value is None:
            raise ValueError(f"this design needs `{need}`, but it was not given; {REMEDIES[need]}")
        return value


@dataclass(frozen=True, eq=False)
class Rows(LabelRows):
    """Label scalars plus the dense rows of one chunk of tokens."""

    logits: Tensor | None = None  # (T, V) student logits z, detached, float32 or float64
    logprobs: Tensor | None = None  # (T, V) log π, nats
    labels: Tensor | None = None  # (T,)
    teacher_logprobs: Tensor | None = None  # (T, V) nats
    reference_logprobs: Tensor | None = None  # (T, V) nats
    previous_logprobs: Tensor | None = None  # (T, V) nats
    known: dict[str, Tensor] | None = None
    """Of sources that are cut: (T, V) bool, the entries that are tokens of their own and not a share of the rest."""
    real_vocab: int | None = None
    """Entries the tokenizer can produce; head rows from here on are padding. None: all V are real."""

    @cached_property
    def probs(self) -> Tensor:
        """π, shape (T, V)."""
        return self.given("logprobs", "student").exp()

    def logprobs_of(self, source: str) -> Tensor:
        """Log-distribution of `source`, shape (T, V), nats; ValueError when it was not given."""
        field = "logprobs" if source == "student" else f"{source}_logprobs"
        return self.given(field, source)

    def margins(self) -> Tensor:
        import torch

        if self.label_margins is not None:
            return self.label_margins
        scores, labels = self.given("logits", "student"), self.given("labels", "student")[:, None]
        return scores.gather(-1, labels).squeeze(-1) - scores.scatter(-1, labels, -torch.inf).amax(-1)

    def known_of(self, source: str) -> Tensor | None:
        """Which entries of `source` are tokens of their own, (T, V) bool; None: all."""
        return None if self.known is None else self.known.get(source)

    @cached_property
    def real(self) -> int:
        """How many vocabulary entries are real."""
        width = int(self.given("logprobs", "student").shape[-1])
        return width if self.real_vocab is None else min(self.real_vocab, width)


REMEDIES = {
    "student": "pass dense `Rows` with the student's log-probabilities",
    "teacher": "give the teacher's logits or name a teacher model, or choose a design without a teacher",
    "reference": "give the reference's logits (the untouched base model), or choose a design without a reference",
    "previous": "give the logits of the previous policy, or choose a design without it",
    "old_logprobs": "give the label log-probabilities of the previous policy, or choose a design without them",
    "critical": "give the mask of critical tokens (a data column), or choose a design without it",
    "sequence_ids": "say which sequence each token belongs to, or choose a token-level design",
}
