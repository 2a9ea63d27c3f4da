"""What one call of the fused loss works on: checked inputs, of which only the valid tokens are left.

Letters: N tokens given, T valid ones, R rows of a chunk, V vocabulary, H width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...spaces.numerics import log_softmax
from ...spaces.rows import LabelRows
from ...spaces.target import TargetSpec
from .dense import IGNORE_INDEX
from .head import Head
from .residual_source import (
    CachedSlice,
    CoarseColumns,
    HiddenHead,
    LabelOnly,
    ResidualSource,
    TopEntries,
    top_entries,
    widen,
)

SOURCES = ("teacher", "reference", "previous")
COLUMNS = ("old_logprobs", "critical", "sequence_ids", "weights")
REAL = ("old_logprobs", "weights")
"""Columns in the precision of the loss."""


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Everything but hidden states and labels, one row per given token."""

    teacher: ResidualSource | None = None
    reference: ResidualSource | None = None
    previous: ResidualSource | None = None
    old_logprobs: Tensor | None = None  # (N,) nats
    critical: Tensor | None = None  # (N,) bool
    sequence_ids: Tensor | None = None  # (N,) int
    weights: Tensor | None = None  # (N,) how often each token counts
    gamma: Tensor | None = None  # (N,) trust computed over a larger batch

    def require(self, spec: TargetSpec) -> None:
        """ValueError when an input that `spec` needs is missing."""
        for name in sorted(spec.needs):
            if getattr(self, name) is None:
                raise ValueError(
                    f"the target {spec.title()!r} needs `{name}`, but it was not given; "
                    f"pass `{name}=` or choose a target without it"
                )
            if isinstance(getattr(self, name), LabelOnly) and name in spec.needs_rows:
                raise ValueError(
                    f"the target {spec.title()!r} looks at the whole distribution of `{name}`, but only the label's "
                    "log-probability was given; ask the model itself or a cache of its rows, or choose another target"
                )
        if self.gamma is not None and spec.gamma.scope != "batch":
            raise ValueError(
                f"`gamma` is for families that look at a whole batch, but {spec.gamma.kind!r} looks at one token; "
                "leave it out"
            )

    def check(self, num_tokens: int, vocab: int, real_vocab: int) -> None:
        """ValueError when an input has not one row per label, or is a distribution over another vocabulary."""
        for name in (*SOURCES, *COLUMNS, "gamma"):
            value = getattr(self, name)
            if value is not None and _num_rows(value) != num_tokens:
                raise ValueError(
                    f"`{name}` must have one row per label, but got {_num_rows(value)} rows for {num_tokens} labels"
                )
        for name in SOURCES:
            _check_vocab(name, getattr(self, name), vocab, real_vocab)


def _num_rows(value: ResidualSource) -> int:
    return value.shape[0] if isinstance(value, Tensor) else value.num_tokens


def _check_vocab(name: str, source: ResidualSource | None, vocab: int, real_vocab: int) -> None:
    if source is None or isinstance(source, CachedSlice | LabelOnly):
        return
    found = source.shape[1] if isinstance(source, Tensor) else source.weight.shape[0]
    if found != vocab and (real_vocab == vocab or found < real_vocab):
        raise ValueError(
            f"`{name}` must have the student's {vocab} vocabulary entries, but has {found}; use a model that shares "
            "the tokenizer, and when only the padding of the heads differs pass `real_vocab`"
        )


def check_labels(labels: Tensor, vocab: int) -> None:
    """ValueError for a label that is neither `IGNORE_INDEX` nor in the vocabulary. Waits for the labels' device."""
    bad = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocab))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"labels must be {IGNORE_INDEX} or in [0, {vocab}), but got {int(labels[first])} at token {first}; "
            "the tokenizer and the model's head do not fit together"
        )


def poisoned_labels(labels: Tensor, vocab: int, num_valid: int) -> tuple[Tensor, Tensor]:
    """Labels that are safe to look up, and what the loss must gain: 0, or NaN when they break the rules.

    For labels on a device that must not be waited for: one out of the vocabulary, or another number of valid ones than
    `num_valid`, then ends in a loss that is not finite.
    """
    valid = labels != IGNORE_INDEX
    safe = labels.clamp(0, vocab - 1)
    broken = ((safe != labels) & valid).any() | (valid.sum() != num_valid)
    return safe, torch.where(broken, torch.nan, 0.0)


def check_finite_hidden(hidden: Tensor, positions: Tensor | None) -> None:
    """ValueError that names the first token with a NaN or infinite hidden state. Waits for the device.

    `hidden` (T, H) are the valid tokens, `positions` (T,) their places among the given ones.
    """
    bad = ~torch.isfinite(hidden).all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"hidden states must be finite, but those of token {first if positions is None else int(positions[first])} "
            f"hold NaN or inf ({int(bad.sum())} of {len(hidden)} valid tokens); the model has diverged"
        )


def valid_positions(labels: Tensor, num_valid: int | None) -> Tensor | None:
    """Indices of the labels that carry a loss, shape (T,); None when all do.

    Knowing how many there are (`num_valid`) saves the one wait for the device that finding out would cost.
    """
    valid = labels != IGNORE_INDEX
    if num_valid is None or not labels.is_cuda:
        found = int(valid.sum())
        if num_valid not in (None, found):
            raise ValueError(
                f"`num_valid` must be how many labels are not {IGNORE_INDEX}, {found}, but got {num_valid}"
            )
        num_valid = found
    if num_valid == len(labels):
        return None
    return torch.nonzero_static(valid, size=num_valid, fill_value=0)[:, 0]


@dataclass(frozen=True, eq=False)
class Distribution:
    """A teacher or reference, asked for its log-probabilities at one chunk of the valid tokens."""

    source: ResidualSource
    entries: TopEntries | None  # of a cached source, valid tokens only
    labels: Tensor | None  # (T,) log r(y) of a source that is known at the label alone
    positions: Tensor | None  # (T,) rows of the valid tokens in `source`; None: all of them
    real_vocab: int
    dtype: torch.dtype

    def logprobs(self, chunk: slice, student_logprobs: Tensor, logits: Tensor | None) -> Tensor:
        """log r, shape (R, V), nats. A cached source takes the student's shape outside its entries.

        `logits` are those of the chunk, of a source that is not cached.
        """
        if self.entries is not None:
            return widen(self.entries.select(chunk), student_logprobs)
        assert logits is not None
        return log_softmax(logits)

    def label_logprobs(self, chunk: slice, labels: Tensor, vocab: int) -> Tensor:
        """log r(y), shape (R,), nats; `labels` (R,)."""
        if self.labels is not None:
            return self.labels[chunk]
        if self.entries is not None:
            return self.entries.logprobs[chunk, 0]
        logits = self.logits(chunk, vocab)
        return logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(1)

    def logits(self, chunk: slice, vocab: int) -> Tensor:
        """Of a source that is not cached, over the student's vocabulary (R, V).

        Models that differ in padding agree on the real entries only.
        """
        logits = self._own_logits(chunk if self.positions is None else self.positions[chunk])
        if logits.shape[1] == vocab:
            return logits
        fitted = logits.new_full((len(logits), vocab), -torch.inf)
        fitted[:, : self.real_vocab] = logits[:, : self.real_vocab]
        return fitted

    def _own_logits(self, index: Tensor | slice) -> Tensor:
        if isinstance(self.source, HiddenHead):
            hidden = self.source.hidden[index].detach()
            source = self.source
            head = Head.build(
                source.weight, source.bias, softcap=source.softcap, logit_scale=source.logit_scale, dtype=hidden.dtype
            )
            return head.logits(hidden).to(self.dtype)
        assert isinstance(self.source, Tensor)
        return self.source[index].detach().to(self.dtype)


@dataclass(frozen=True, eq=False)
class ValidTokens:
    """The T tokens that carry a loss, with what the targets may look at."""

    labels: Tensor  # (T,) int64
    sources: dict[str, Distribution]
    columns: dict[str, Tensor]  # each (T,)
    gamma: Tensor | None = None  # (T,) trust computed over a larger batch

    @classmethod
    def select(
        cls, labels: Tensor, inputs: TokenInputs, positions: Tensor | None, real_vocab: int, dtype: torch.dtype
    ) -> ValidTokens:
        """The given rows at `positions` (T,); None keeps all. `labels` (N,)."""

        def rows(tensor: Tensor) -> Tensor:
            return tensor if positions is None else tensor[positions]

        chosen = rows(labels).long()
        sources = {}
        for name in SOURCES:
            source = getattr(inputs, name)
            if source is None:
                continue
            entries = None
            if isinstance(source, CachedSlice):
                kept = source if positions is None else source.select(positions)
                entries = top_entries(kept, chosen, dtype)
            at_labels = rows(source.logprobs).detach().to(dtype) if isinstance(source, LabelOnly) else None
            sources[name] = Distribution(source, entries, at_labels, positions, real_vocab, dtype)
        given = {name: rows(getattr(inputs, name)) for name in COLUMNS if getattr(inputs, name) is not None}
        given |= {name: given[name].detach().to(dtype) for name in REAL if name in given}
        if "critical" in given:
            given["critical"] = given["critical"].bool()
        gamma = None if inputs.gamma is None else rows(inputs.gamma).detach().to(dtype)
        return cls(chosen, sources, given, gamma)

    @property
    def cached(self) -> frozenset[str]:
        """Names of the sources that come as cached rows."""
        return frozenset(name for name, source in self.sources.items() if source.entries is not None)

    @property
    def live(self) -> frozenset[str]:
        """Names of the sources whose rows take a product with their head, or lie there whole."""
        return frozenset(
            name for name, source in self.sources.items() if source.entries is None and source.labels is None
        )

    def fewest(self, name: str) -> int:
        """Entries that every row of a cached source has at least."""
        source = self.sources[name].source
        assert isinstance(source, CachedSlice)
        return source.at_least()

    def coarse_columns(self, names: frozenset[str]) -> CoarseColumns:
        """The label, with the cached entries of the sources in `names`."""
        cached = {name: source.entries for name, source in self.sources.items() if source.entries is not None}
        return CoarseColumns.merge(self.labels, {name: cached[name] for name in sorted(names)})

    def chunk_columns(self, chunk: slice) -> dict[str, Any]:
        """The per-token columns that were given, cut to a chunk."""
        return {name: column[chunk] for name, column in self.columns.items()}

    def scalars(
        self,
        chunk: slice,
        label_logprobs: Tensor,
        needs: frozenset[str],
        vocab: int,
        label_margins: Tensor | None = None,
    ) -> LabelRows:
        """The per-token scalars of a chunk; another model's label log-probability only where `needs` names it."""
        asked: dict[str, Any] = {
            f"{name}_label_logprobs": source.label_logprobs(chunk, self.labels[chunk], vocab)
            for name, source in self.sources.items()
            if name in needs and name != "previous"
        }
        columns = self.chunk_columns(chunk)
        return LabelRows(label_logprobs=label_logprobs, label_margins=label_margins, **asked, **columns)
