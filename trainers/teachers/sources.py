"""Where teacher and reference distributions come from while training: a frozen model, a cache on disk, or the data."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ..data.batches import Batch
from ..loss.residual_source import CachedSlice, HiddenHead, LabelOnly, ResidualSource
from ..models.head import OutputHead, evaluating, hidden_states, output_head
from .answers import Answers
from .cache import TeacherCache


class Source(Protocol):
    """Gives a distribution for the T positions of a batch that carry a loss, live or from a cache."""

    def rows(self, batch: Batch) -> ResidualSource:
        """Rows in the order of `batch.flat_labels`."""
        ...


@dataclass(eq=False)
class FrozenModel:
    """A model that is asked and never trained.

    With `adapters_off` it is the student itself with its adapters switched off: the untouched base, for free.
    """

    model: nn.Module
    adapters_off: bool = False
    vocab: int | None = None
    """Rows of the head to use, where the heads of model and student are padded differently."""
    answers: Answers | None = None
    """Where what it says is kept for the next training that asks the same."""

    def __post_init__(self) -> None:
        if not self.adapters_off:
            self.model.requires_grad_(False)
        with self._base():
            self.head = output_head(self.model)

    def rows(self, batch: Batch) -> HiddenHead:
        """Hidden states of the positions with a loss, with the head that reads them."""
        hidden = self._ask(batch) if self.answers is None else self.answers.of(batch.content, lambda: self._ask(batch))
        head = self.head
        bias = None if head.bias is None else head.bias.detach()[: self.vocab]
        return HiddenHead(hidden, head.weight.detach()[: self.vocab], bias, head.softcap, head.logit_scale)

    def _ask(self, batch: Batch) -> Tensor:
        with self._base(), evaluating(self.model):
            return batch.select(hidden_states(self.model, *batch.read))

    def _base(self) -> AbstractContextManager[None]:
        model: Any = self.model
        base: AbstractContextManager[None] = model.disable_adapter() if self.adapters_off else nullcontext()
        return base


@dataclass(frozen=True, eq=False)
class CachedModel:
    """A teacher or reference that was asked once, before; its cache holds exactly the data of the run."""

    cache: TeacherCache

    def rows(self, batch: Batch) -> CachedSlice | LabelOnly:
        """What is cached of the positions with a loss, on the device of the batch."""
        return self.cache.rows(batch.indices.tolist()).to(batch.labels.device)


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """A reference that the data bring along: the log-probability of each token, in a column."""

    def rows(self, batch: Batch) -> LabelOnly:
        """The column at the positions with a loss."""
        logprobs = batch.flat_reference_logprobs
        assert logprobs is not None, "checked when the run began"
        return LabelOnly(logprobs)


def label_logprobs(source: Source, batch: Batch) -> Tensor:
    """log r(y) at the positions with a loss, shape (T,), nats."""
    rows = source.rows(batch)
    if isinstance(rows, LabelOnly):
        return rows.logprobs.float()
    if isinstance(rows, CachedSlice):
        return rows.label_logprob.float()
    if isinstance(rows, HiddenHead):
        head = OutputHead(rows.weight, rows.bias, rows.softcap, rows.logit_scale)
        return head.label_logprobs(rows.hidden, batch.flat_labels)
    return rows.gather(1, batch.flat_labels.unsqueeze(1)).squeeze(1)
