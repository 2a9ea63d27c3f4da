"""One call of the fused loss: check, select, run the chunks, and give autograd the gradients that are already known.

Letters: N tokens given, T valid ones, V vocabulary, H width, D designs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ...spaces.target import TargetSpec
from .chunks import Call, ChunkLoop, TokenResults
from .gradients import HeadGradients, NoGradients, SharedGradients, Wanted
from .head import Head, compute_dtype
from .inputs import TokenInputs, ValidTokens, check_finite_hidden, check_labels, poisoned_labels, valid_positions

SCALED_ROWS = 256
"""Rows of a gradient that a CPU scales and rounds at a time, while they are in its cache."""

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True, eq=False)
class LossSum:
    """The target loss of some tokens, as a sum: whoever knows the whole effective batch divides, once."""

    loss_sum: Tensor
    """Scalar, nats; differentiable in the hidden states and the head."""
    num_tokens: int
    """Valid tokens."""
    p_label: Tensor
    """π(y), shape (tokens,), 0 at ignored tokens; detached."""
    entropy: Tensor
    """H(π) in nats, shape (tokens,), 0 at ignored tokens; detached."""
    denominator: Tensor | None = None
    """Scalar: what these tokens add to the denominator of the design (`num_tokens` for most); detached."""

    def require_finite(self) -> None:
        """ValueError that names the first token with a non-finite probability. Waits for the device."""
        bad = ~torch.isfinite(self.p_label)
        if bool(bad.any()):
            raise ValueError(
                f"the logits must be finite, but those of token {int(bad.nonzero()[0])} are not "
                f"({int(bad.sum())} of {self.num_tokens} tokens); hidden states or the head hold NaN or inf"
            )


def outside_compile(function: Function) -> Function:
    """`function` ends the graph of a compiled model around it; it is no part of one."""
    return cast(Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class HeadArguments:
    """The head as it was given: weight (V, H), bias (V,)."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    logit_scale: float
    real_vocab: int | None

    def check(self, hidden: Tensor, labels: Tensor) -> None:
        weight = self.weight
        if hasattr(weight, "full_tensor") or weight.ndim != 2:
            raise ValueError(
                f"`head_weight` must be a whole (vocab, width) tensor, but got {type(weight).__name__} of shape "
                f"{tuple(weight.shape)}; under FSDP call the loss inside the wrapped model's forward"
            )
        if hidden.ndim != 2 or labels.shape != hidden.shape[:1] or hidden.shape[1] != weight.shape[1]:
            raise ValueError(
                f"`hidden` must be (tokens, width), `labels` (tokens,) and `head_weight` (vocab, width), but got "
                f"{tuple(hidden.shape)}, {tuple(labels.shape)} and {tuple(weight.shape)}; flatten batch and time first"
            )
        if self.bias is not None and self.bias.shape != weight.shape[:1]:
            raise ValueError(f"`bias` must be (vocab,) = ({weight.shape[0]},), but got {tuple(self.bias.shape)}")
        if self.real_vocab is not None and not 1 <= self.real_vocab <= weight.shape[0]:
            raise ValueError(f"`real_vocab` must be in [1, {weight.shape[0]}], but got {self.real_vocab}")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"`softcap` must be above 0, but got {self.softcap}; pass None for a head without a cap")

    def wanted(self, hidden: Tensor) -> Wanted:
        if not torch.is_grad_enabled():
            return Wanted(False, False, False)
        bias = self.bias is not None and self.bias.requires_grad
        return Wanted(hidden.requires_grad, self.weight.requires_grad, bias)

    def build(self, dtype: torch.dtype) -> Head:
        return Head.build(
            self.weight,
            self.bias,
            softcap=self.softcap,
            logit_scale=self.logit_scale,
            dtype=dtype,
            real_vocab=self.real_vocab,
        )


def run_call(
    hidden: Tensor,
    head: HeadArguments,
    labels: Tensor,
    specs: list[TargetSpec],
    inputs: TokenInputs,
    max_chunk_bytes: int,
    num_valid: int | None,
    check_finite: bool | None,
    *,
    shared: bool,
) -> list[LossSum]:
    head.check(hidden, labels)
    vocab = head.weight.shape[0]
    inputs.check(len(labels), vocab, vocab if head.real_vocab is None else head.real_vocab)
    looks = not hidden.is_cuda if check_finite is None else check_finite
    poison: Tensor | float = 0.0
    if num_valid is not None and labels.is_cuda:
        safe_labels, poison = poisoned_labels(labels, vocab, num_valid)
    else:
        check_labels(labels, vocab)
        safe_labels = labels.to(hidden.device, non_blocking=True)
    positions = valid_positions(labels, num_valid)
    positions = None if positions is None else positions.to(hidden.device, non_blocking=True)
    if looks:
        check_finite_hidden(hidden if positions is None else hidden.detach()[positions], positions)
    rows = hidden if positions is None else hidden.index_select(0, positions)
    wanted = head.wanted(rows)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        built = head.build(rows.dtype)
        tokens = ValidTokens.select(safe_labels, inputs, positions, built.real_vocab, compute_dtype(rows.dtype))
        call = Call(rows.detach(), built, tokens)
        gradients = _gradients(call, wanted, len(specs), shared=shared)
        results = ChunkLoop(call, specs, gradients).run(max_chunk_bytes)
        values = torch.stack([result.loss.sum() for result in results]) + poison
    losses = values.unbind()
    if wanted:
        losses = _SumWithGradient.apply(rows, head.weight, head.bias, values, gradients)  # type: ignore[no-untyped-call]
    sums = [_loss_sum(losses[number], result, positions, len(labels)) for number, result in enumerate(results)]
    if looks:
        for one in sums:
            one.require_finite()
    return sums


def _gradients(
    call: Call, wanted: Wanted, designs: int, *, shared: bool
) -> HeadGradients | SharedGradients | NoGradients:
    if not wanted:
        return NoGradients()
    return SharedGradients(call.hidden, call.head, designs) if shared else HeadGradients(call.hidden, call.head, wanted)


def _loss_sum(loss: Tensor, result: TokenResults, positions: Tensor | None, num_tokens: int) -> LossSum:
    def spread(values: Tensor) -> Tensor:
        if positions is None:
            return values
        return values.new_zeros(num_tokens).index_copy_(0, positions, values)

    return LossSum(loss, len(result.loss), spread(result.label_prob), spread(result.entropy), result.count.sum())


class _SumWithGradient(torch.autograd.Function):
    """The sums of D designs as D scalars, whose gradients are already known."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor,
        gradients: HeadGradients | SharedGradients,
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.dtypes = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return tuple(value.clone() for value in values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradient of a fused target loss is handed out once; compute the loss again")
        if isinstance(gradients, SharedGradients):
            factors = torch.stack(upstream).to(gradients.hidden.dtype)
            hidden = torch.einsum("d,dth->th", factors, gradients.hidden)
            return hidden, None, None, None, None
        parts = (gradients.hidden, gradients.weight, gradients.bias)
        scaled = (_scaled(part, upstream[0], dtype) for part, dtype in zip(parts, ctx.dtypes, strict=True))
        return (*scaled, None, None)


def _scaled(gradient: Tensor | None, factor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """In place: the gradient is ours to give away, and a copy of the head's would be as large as the head."""
    if gradient is None:
        return None
    if gradient.dtype == dtype or gradient.device.type != "cpu":
        if factor.device.type != "cpu" or factor.item() != 1.0:
            gradient.mul_(factor)
        return gradient.to(dtype)
    found = torch.empty_like(gradient, dtype=dtype)
    for part, rounded in zip(torch.split(gradient, SCALED_ROWS), torch.split(found, SCALED_ROWS), strict=True):
        rounded.copy_(part.mul_(factor))
    return found
