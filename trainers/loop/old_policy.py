"""The previous policy: what the weights at the start of a window of steps say, on labels or in full."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ..data.batches import Batch, BatchOrder, EffectiveBatch
from ..models.head import OutputHead, evaluating, hidden_states
from ..models.ranks import is_sharded
from ..teachers.sources import FrozenModel


class OldPolicy:
    """log π_old(y) for the batches of the current window of `every` steps.

    π_old is refreshed where the step number is a multiple of `every`, from the weights as they are then. Each step's
    values are kept in the token order of its effective batch, which no choice of micro-batch changes.
    """

    def __init__(self, model: nn.Module, head: OutputHead, order: BatchOrder, *, every: int, micro_batch: int) -> None:
        self.model, self.head, self.order = model, head, order
        self.every, self.micro_batch = every, micro_batch
        self.window: dict[int, Tensor] = {}

    def refresh(self, step: int, last_step: int) -> None:
        """Compute the window that starts at `step`, up to `last_step` (exclusive), if one starts here."""
        if step % self.every == 0:
            self.window = {later: self._logprobs(later) for later in range(step, min(step + self.every, last_step))}

    def rows(self, effective: EffectiveBatch, batch: Batch) -> Tensor:
        """log π_old(y), shape (T,), nats, of the positions with a loss in a micro-batch of an effective batch."""
        return self.window[effective.step][effective.tokens_of(batch)].to(batch.labels.device)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {str(step): logprobs for step, logprobs in self.window.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.window = {int(step): logprobs for step, logprobs in state.items()}

    def _logprobs(self, step: int) -> Tensor:
        pieces = []
        with evaluating(self.model):
            for part in self.order.at(step).micro_batches(self.micro_batch):
                batch = part.to(self.head.weight.device)
                hidden = batch.select(hidden_states(self.model, batch.inputs, batch.position_ids))
                pieces.append(self.head.label_logprobs(hidden, batch.flat_labels))
        return torch.cat(pieces)


class PreviousModel:
    """A second copy of the model that takes over its weights where the step number is a multiple of `every`."""

    def __init__(self, model: nn.Module, *, every: int) -> None:
        if any(is_sharded(parameter) for parameter in model.parameters()):
            raise UserError(
                "a target that looks at the former weights in full needs a copy of the model, but a sharded one cannot "
                "be copied; use `strategy: ddp`, or leave such targets out",
                field="engine.strategy",
            )
        self.model, self.every = model, every
        self.source = FrozenModel(copy.deepcopy(model))

    @torch.no_grad()
    def refresh(self, step: int) -> None:
        """Take over the current weights if a window starts at `step`."""
        if step % self.every == 0:
            for mine, current in zip(self.source.model.parameters(), self.model.parameters(), strict=True):
                mine.copy_(current)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the weights that training changes."""
        mine = dict(self.source.model.named_parameters())
        return {name: mine[name] for name, current in self.model.named_parameters() if current.requires_grad}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        mine = dict(self.source.model.named_parameters())
        for name, tensor in state.items():
            mine[name].copy_(tensor)
