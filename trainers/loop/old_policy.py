"""The previous policy: what the weights at the start of a window of steps say, or a moving average of them."""

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

    π_old is refreshed where the step number is a multiple of `every`, from the weights of `model` as they are then.
    Each step's values are kept in the token order of its effective batch, which no choice of micro-batch changes.
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
                hidden = batch.select(hidden_states(self.model, *batch.read))
                pieces.append(self.head.label_logprobs(hidden, batch.flat_labels))
        return torch.cat(pieces)


class PreviousModel:
    """A second copy of the model that moves towards its weights where the step number is a multiple of `every`.

    previous ← decay·previous + (1 − decay)·current; with decay 0 it takes them over. Averages are kept in float32: in
    half precision a small share of a small change would be lost in rounding.
    """

    def __init__(self, model: nn.Module, *, every: int, decay: float = 0.0) -> None:
        if any(is_sharded(parameter) for parameter in model.parameters()):
            raise UserError(
                "a target that looks at the former weights in full needs a copy of the model, but a sharded one cannot "
                "be copied; use `strategy: ddp`, or leave such targets out",
                field="engine.strategy",
            )
        self.model, self.every, self.decay = model, every, decay
        self.source = FrozenModel(copy.deepcopy(model))
        self._moving = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._averages = {name: _exact(mine) for name, mine in self._mine().items()} if decay else {}

    @torch.no_grad()
    def refresh(self, step: int) -> None:
        """Move towards the current weights if a window starts at `step`."""
        if step % self.every:
            return
        current = dict(self.model.named_parameters())
        for name, mine in self._mine().items():
            if self.decay:
                mine.copy_(self._averages[name].lerp_(_exact(current[name]), 1 - self.decay))
            else:
                mine.copy_(current[name])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the weights that training changes."""
        return dict(self._averages) if self.decay else self._mine()

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        mine = self._mine()
        for name, tensor in state.items():
            mine[name].copy_(tensor)
            if self.decay:
                self._averages[name].copy_(tensor)

    def _mine(self) -> dict[str, Tensor]:
        """The copy's own weights, of those that training changes."""
        return {name: mine.detach() for name, mine in self.source.model.named_parameters() if name in self._moving}


def _exact(weight: Tensor) -> Tensor:
    """A weight in float32, or as it is where that is no less."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
