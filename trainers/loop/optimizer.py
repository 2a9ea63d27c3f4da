"""AdamW over full-precision masters of the trainable weights, with warm-up, decay and clipping.

Weights in bf16 lose updates smaller than 1/256 of themselves, so they keep a float32 master, and gradients of all
micro-batches add up in float32. Of a sharded model (`ranks.py`) each rank keeps and updates its share.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from ..models.ranks import is_sharded, local, share_of, spread
from ..settings import TrainingSettings

REDUCE_ELEMENTS = 2**24
"""Gradient entries that ranks exchange at once."""
MATRIX_DIMS = 2
"""Weight decay is for matrices; norms and biases go without."""


class Optimizer:
    """The trainable weights of a model and their AdamW."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        self.settings = settings
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.sharded = {name for name, parameter in self.parameters.items() if is_sharded(parameter)}
        self.masters = {name: self._master(parameter) for name, parameter in self.parameters.items()}
        decayed = [master for master in self.masters.values() if master.ndim >= MATRIX_DIMS]
        plain = [master for master in self.masters.values() if master.ndim < MATRIX_DIMS]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.fused = all(master.is_cuda for master in self.masters.values())
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=settings.adam_betas, fused=self.fused
        )

    @staticmethod
    def _master(parameter: nn.Parameter) -> Tensor:
        """The parameter itself where it is precise enough; of a sharded one the share of this rank."""
        precise = parameter.dtype in (torch.float32, torch.float64)
        if precise and not is_sharded(parameter):
            return parameter
        share = local(parameter.detach())
        return (share if precise else share.float()).requires_grad_()

    def collect(self) -> None:
        """Add the gradients of one backward pass to the masters' and free them."""
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = local(parameter.grad).to(master.dtype)
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Gradients of the masters; one that no backward pass reached is zero."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [master.grad for master in self.masters.values() if master.grad is not None]

    def sum_over_ranks(self, accelerator: Accelerator) -> None:
        """Replace the gradients of this rank by their sums over all ranks, many at a time.

        Those of sharded weights are sums already: the backward pass leaves each rank its share of them.
        """
        bucket: list[Tensor] = []
        gradients = self._split(self.gradients())[0]
        for number, gradient in enumerate(gradients):
            bucket.append(gradient)
            full = sum(part.numel() for part in bucket) >= REDUCE_ELEMENTS
            if full or number == len(gradients) - 1:
                flat = accelerator.reduce(torch.cat([part.reshape(-1) for part in bucket]), "sum")
                for part, summed in zip(bucket, torch.split(flat, [part.numel() for part in bucket]), strict=True):
                    part.copy_(summed.view_as(part))
                bucket = []

    def scale(self, factor: float) -> None:
        """Multiply all gradients."""
        torch._foreach_mul_(self.gradients(), factor)

    def clip(self) -> Tensor:
        """Global L2 norm of the gradients before they are scaled down to `clip_norm`, a scalar tensor."""
        gradients = self.gradients()
        norm = self._norm(gradients)
        if self.settings.clip_norm is not None:
            scale = (self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
        return norm

    def _split(self, gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Those that every rank has whole, and those of which it has a share."""
        named = list(zip(self.masters, gradients, strict=True))
        return (
            [gradient for name, gradient in named if name not in self.sharded],
            [gradient for name, gradient in named if name in self.sharded],
        )

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        if not self.sharded:
            return nn.utils.get_total_norm(gradients)
        replicated, shares = self._split(gradients)
        square = nn.utils.get_total_norm(shares) ** 2
        dist.all_reduce(square)
        return (square + nn.utils.get_total_norm(replicated) ** 2).sqrt()

    def step(self, learning_rate: float) -> None:
        """One AdamW update, carried over to the model's own weights."""
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()
        self.clear()
        self.publish()

    def clear(self) -> None:
        """Forget all gradients."""
        for tensor in (*self.masters.values(), *self.parameters.values()):
            tensor.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model's weights."""
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                local(parameter).copy_(self.masters[name])

    def weights(self) -> dict[str, Tensor]:
        """The masters by name, those of a sharded model as DTensors."""
        return {name: self._spread(name, master) for name, master in self.masters.items()}

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from what `weights` gave, here or on other ranks: whole tensors are shared out."""
        for name, master in self.masters.items():
            master.copy_(self._share(name, weights[name]))
        self.publish()

    def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a checkpoint's tensor of a weight: this rank's share on its device, or all of it."""
        if not self._parted(name, len(shape)):
            return torch.empty(shape, dtype=dtype)
        return spread(torch.empty_like(self.masters[name], dtype=dtype), self.parameters[name])

    def _parted(self, name: str, dims: int) -> bool:
        return name in self.sharded and dims > 0  # AdamW counts its steps in a scalar

    def _spread(self, name: str, tensor: Tensor) -> Tensor:
        return spread(tensor, self.parameters[name]) if self._parted(name, tensor.ndim) else tensor

    def _share(self, name: str, tensor: Tensor) -> Tensor:
        return share_of(tensor, self.parameters[name]) if self._parted(name, tensor.ndim) else tensor

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state by the name of the weight, `NAME/KEY`, spread as `weights`; empty before the first step."""
        return {
            f"{name}/{key}": self._spread(name, value)
            for name, master in self.masters.items()
            for key, value in self.adamw.state.get(master, {}).items()
        }

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        """Continue with the state that `moments` gave."""
        for key, value in moments.items():
            name, _, kind = key.rpartition("/")
            master = self.masters[name]
            beside = self.fused or kind != "step"  # an AdamW that is not fused counts its steps on the CPU
            device = master.device if beside else "cpu"
            copy = not is_sharded(value)  # whose memory is the checkpoint's own
            self.adamw.state[master][kind] = self._share(name, value).to(device, copy=copy)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear rise, then a half cosine towards 0, or constant."""
    warmup = round(settings.warmup_fraction * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.decay == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
