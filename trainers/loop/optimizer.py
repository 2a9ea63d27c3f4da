"""AdamW over full-precision masters of the trainable weights, with warm-up, decay and clipping.

Weights in bf16 lose updates smaller than 1/256 of themselves, so they keep a float32 master, and gradients of several
micro-batches add up in float32. An update goes through memory once: a piece at a time, a gradient is widened, scaled
and used by torch's fused AdamW, and the master rounded into the model's weight while it is in the cache.
Of a sharded model (`ranks.py`) each rank keeps and updates its share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from ..models.ranks import is_sharded, local, share_of, spread
from ..settings import TrainingSettings

REDUCE_ELEMENTS = 2**24
"""Gradient entries that ranks exchange at once."""
CPU_PIECE, GPU_PIECE = 2**17, 2**23
"""Entries that a CPU thread, or a GPU, updates at a time: few enough to stay in its cache."""
MATRIX_DIMS = 2
"""Weight decay is for matrices; norms and biases go without."""
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of the gradient and of its square, as torch names them."""


class _Piece(NamedTuple):
    """Some rows of a weight, in the memory of the whole."""

    weight: Tensor
    """The model's own."""
    master: Tensor
    gradient: Tensor | None
    """In the precision of the backward pass; None: zero."""
    moments: tuple[Tensor, ...] = ()


class Optimizer:
    """The trainable weights of a model and their AdamW."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        self.settings = settings
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.sharded = {name for name, parameter in self.parameters.items() if is_sharded(parameter)}
        self.masters = {name: self._master(parameter) for name, parameter in self.parameters.items()}
        self.device = next(iter(self.masters.values())).device
        self._gradients: dict[str, Tensor] = {}
        self._factor = 1.0
        self._moments: dict[str, tuple[Tensor, ...]] = {}
        self._steps = torch.zeros((), device=self.device)

    @staticmethod
    def _master(parameter: nn.Parameter) -> Tensor:
        """The memory of the parameter where it is precise enough; of a sharded one the share of this rank."""
        share = local(parameter.detach())
        return share if parameter.dtype in (torch.float32, torch.float64) else share.float()

    def collect(self) -> None:
        """Take the gradients of a backward pass off the parameters, and add them to those of the passes before."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient, parameter.grad = local(parameter.grad), None
            before = self._gradients.get(name)  # the first stays as it is: only a sum needs full precision
            self._gradients[name] = gradient if before is None else before.to(self.masters[name].dtype).add_(gradient)

    def sum_over_ranks(self, accelerator: Accelerator) -> None:
        """Replace the gradients of this rank by their sums over all ranks, many at a time.

        Those of sharded weights are sums already: the backward pass leaves each rank its share of them.
        """
        bucket: list[Tensor] = []
        gradients = [self._in_full(name) for name in self.masters if name not in self.sharded]
        for number, gradient in enumerate(gradients):
            bucket.append(gradient)
            full = sum(part.numel() for part in bucket) >= REDUCE_ELEMENTS
            if full or number == len(gradients) - 1:
                flat = accelerator.reduce(torch.cat([part.reshape(-1) for part in bucket]), "sum")
                for part, summed in zip(bucket, torch.split(flat, [part.numel() for part in bucket]), strict=True):
                    part.copy_(summed.view_as(part))
                bucket = []

    def _in_full(self, name: str) -> Tensor:
        """The gradient of a weight in the master's precision; one that no backward pass reached is zero."""
        master, gradient = self.masters[name], self._gradients.get(name)
        self._gradients[name] = torch.zeros_like(master) if gradient is None else gradient.to(master.dtype)
        return self._gradients[name]

    def scale(self, factor: float) -> None:
        """Multiply all gradients, which happens on the way into the update."""
        self._factor *= factor

    def clip(self) -> float:
        """Global L2 norm of the gradients before they are scaled down to `clip_norm`, on the way into the update."""
        norm = abs(self._factor) * self._norm()
        if self.settings.clip_norm is not None and math.isfinite(norm):
            self._factor *= min(1.0, self.settings.clip_norm / (norm + 1e-6))
        return norm

    def _norm(self) -> float:
        given = [name for name in self.masters if name in self._gradients]  # in one order: sums of floats know theirs
        square = self._square(name for name in given if name in self.sharded)
        if self.sharded:
            dist.all_reduce(square)
        return math.sqrt((square + self._square(name for name in given if name not in self.sharded)).item())

    @torch.no_grad()
    def _square(self, names: Iterable[str]) -> Tensor:
        """Sum of the squares of gradients, a scalar in double precision."""
        norms = [torch.zeros((), device=self.device)]
        for bucket in self._buckets(names):
            norms += torch._foreach_norm(_widened(bucket))
        return torch.stack(norms).double().square().sum()

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One AdamW update, carried over to the model's own weights."""
        if not self._moments:
            self._moments = {name: (torch.zeros_like(m), torch.zeros_like(m)) for name, m in self.masters.items()}
        self._steps += 1
        matrices = [name for name, master in self.masters.items() if master.ndim >= MATRIX_DIMS]
        others = [name for name, master in self.masters.items() if master.ndim < MATRIX_DIMS]
        for names, decay in ((matrices, self.settings.weight_decay), (others, 0.0)):
            for bucket in self._buckets(names):
                self._update(bucket, learning_rate, decay)
        self.clear()

    def _update(self, bucket: list[_Piece], learning_rate: float, decay: float) -> None:
        gradients, (beta1, beta2) = _widened(bucket), self.settings.adam_betas
        if self._factor != 1.0:
            torch._foreach_mul_(gradients, self._factor)
        torch._fused_adamw_(
            [piece.master for piece in bucket],
            gradients,
            [piece.moments[0] for piece in bucket],
            [piece.moments[1] for piece in bucket],
            [],
            [self._steps] * len(bucket),
            lr=learning_rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        _round(bucket)

    def _buckets(self, names: Iterable[str]) -> Iterator[list[_Piece]]:
        """Weights cut into pieces and put together again into what is computed at a time; one precision each."""
        limit = GPU_PIECE if self.device.type == "cuda" else CPU_PIECE * torch.get_num_threads()
        bucket: list[_Piece] = []
        size = 0
        for name in names:
            for piece in self._pieces(name, limit):
                full = size + piece.master.numel() > limit
                if bucket and (full or piece.master.dtype != bucket[0].master.dtype):
                    yield bucket
                    bucket, size = [], 0
                bucket.append(piece)
                size += piece.master.numel()
        if bucket:
            yield bucket

    def _pieces(self, name: str, limit: int) -> Iterator[_Piece]:
        master, gradient = _at_least_a_row(self.masters[name]), self._gradients.get(name)
        whole = (local(self.parameters[name].detach()), master, *self._moments.get(name, ()))
        rows = max(1, limit * len(master) // max(1, master.numel()))
        if not master.is_contiguous():  # its rows are no memory of their own
            rows = max(1, len(master))
        if not len(master):  # a share of nothing
            return
        weights, masters, *moments = (torch.split(_at_least_a_row(each), rows) for each in whole)
        own: Iterable[Tensor | None] = repeat(None)
        if gradient is not None:
            own = torch.split(_at_least_a_row(gradient), rows)
        states: Iterable[tuple[Tensor, ...]] = zip(*moments, strict=True) if moments else repeat(())
        yield from map(_Piece, weights, masters, own, states)

    def clear(self) -> None:
        """Forget all gradients."""
        self._gradients, self._factor = {}, 1.0
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model's weights."""
        for bucket in self._buckets(self.masters):
            _round(bucket)

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

    def gradients(self) -> dict[str, Tensor]:
        """Copies of what the next update takes of each weight, scaled and clipped; sharded ones: this rank's share."""
        return {
            name: gradient.to(self.masters[name].dtype) * self._factor for name, gradient in self._gradients.items()
        }

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state by the name of the weight, `NAME/KEY`, spread as `weights`; empty before the first step."""
        found: dict[str, Tensor] = {}
        for name, moments in self._moments.items():
            found[f"{name}/step"] = self._steps.clone()  # files refuse tensors that share memory
            found |= {f"{name}/{key}": self._spread(name, each) for key, each in zip(MOMENTS, moments, strict=True)}
        return found

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        """Continue with the state that `moments` gave."""
        for name, master in self.masters.items() if moments else ():
            given = [moments[f"{name}/{key}"] for key in MOMENTS]
            self._steps.copy_(moments[f"{name}/step"])
            self._moments[name] = tuple(
                self._share(name, each).to(master.device, copy=not is_sharded(each))  # whose memory is the checkpoint's
                for each in given
            )


def _at_least_a_row(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim else tensor[None]


def _widened(bucket: list[_Piece]) -> list[Tensor]:
    """The gradients of some pieces as their masters are; those that are so already are not copied."""
    found = []
    for piece in bucket:
        gradient, master = piece.gradient, piece.master
        if gradient is None:
            found.append(torch.zeros_like(master))
        elif (gradient.dtype, gradient.stride()) == (master.dtype, master.stride()):
            found.append(gradient)
        else:
            found.append(torch.empty_like(master).copy_(gradient))
    return found


def _round(bucket: list[_Piece]) -> None:
    """Carry masters over to the model's weights; where these are precise enough, they are the same memory."""
    for piece in bucket:
        if piece.weight.dtype != piece.master.dtype:
            piece.weight.copy_(piece.master)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear rise, then a half cosine towards 0, or constant."""
    warmup = round(settings.warmup_fraction * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.decay == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
