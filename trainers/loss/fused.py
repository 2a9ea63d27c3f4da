"""The target loss over a large vocabulary, never holding (tokens, vocab): every design at the price of cross-entropy.

Hidden states go in, a sum over tokens comes out; logits exist one chunk at a time, and the gradient is taken while they
do (no second logits GEMM). `dense_target_loss` is the same loss on dense logits.

Letters: N tokens given, T valid ones, V vocabulary, H width, D designs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...spaces.target import TargetSpec
from .call import HeadArguments, LossSum, outside_compile, run_call
from .dense import IGNORE_INDEX, dense_target_loss
from .inputs import TokenInputs
from .residual_source import CachedSlice, HiddenHead, LabelOnly, ResidualSource

__all__ = [
    "IGNORE_INDEX",
    "CachedSlice",
    "HiddenHead",
    "LabelOnly",
    "LossSum",
    "dense_target_loss",
    "fused_target_loss",
    "fused_target_losses",
]

DEFAULT_CHUNK_BYTES = 2**29


@outside_compile
def fused_target_loss(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    spec: TargetSpec,
    *,
    teacher: ResidualSource | None = None,
    reference: ResidualSource | None = None,
    previous: ResidualSource | None = None,
    old_logprobs: Tensor | None = None,
    critical: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
    gamma: Tensor | None = None,
    bias: Tensor | None = None,
    real_vocab: int | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    max_chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    num_valid: int | None = None,
    check_finite: bool | None = None,
) -> LossSum:
    """The target loss of `dense_target_loss` on logits = cap(logit_scale·(hidden·head_weightᵀ + bias)).

    Call it inside the forward pass of a model wrapped by DDP or FSDP, where the head is whole and its hooks are live.
    Half-precision inputs multiply in half precision; softmax, target and gradient sums are float32. The gradient is
    computed here and handed out once: a second `backward` over the same result is an error.

    Args:
        hidden: (tokens, width), aligned with `labels`: nothing is shifted.
        head_weight: (vocab, width); without `requires_grad` its gradient costs nothing.
        labels: (tokens,), -100 = ignored.
        spec: the design; one with a schedule is passed as `spec.at(progress)`.
        teacher: (tokens, vocab) log-probabilities, a `CachedSlice` or a `HiddenHead`, rows aligned with `labels`; a
            `LabelOnly` where the design looks at no more than its label (`spec.needs_rows`).
        reference: as `teacher`, of the frozen start model.
        previous: as `teacher`, of the previous policy.
        old_logprobs: (tokens,) log-probability of the label under the previous policy, nats.
        critical: (tokens,) bool, the tokens that the data marks as critical.
        sequence_ids: (tokens,) int, which sequence each token belongs to.
        weights: (tokens,) how often each token counts, above 0: in the loss, and in what it is divided by.
        gamma: (tokens,) trust of a family whose `scope` is `batch`, when it was computed over a larger batch than this.
        bias: (vocab,) of the head.
        real_vocab: how many entries the tokenizer can produce; the rest of the head is padding. None: all.
        softcap: logits are softcap·tanh(logits/softcap), as in Gemma.
        logit_scale: factor of the logits, as in Cohere and (inverse) Granite.
        max_chunk_bytes: the (rows, vocab) tensors of one chunk stay below this.
        num_valid: how many labels are not -100, if known. Given, the host never waits for a GPU, but for families that
            look at whole sequences and count them: labels are then not looked at before they are used, and one out of
            the vocabulary makes the loss NaN.
        check_finite: look for NaN and inf in hidden states and logits, and wait for the answer. None: on CPU only;
            elsewhere `LossSum.require_finite` asks later.

    Raises:
        ValueError: a shape that does not fit, a label out of the vocabulary, an input that the design needs and did
            not get, hidden states that are not finite, or `max_chunk_bytes` below what one row takes.
    """
    inputs = TokenInputs(teacher, reference, previous, old_logprobs, critical, sequence_ids, weights, gamma)
    head = HeadArguments(head_weight, bias, softcap, logit_scale, real_vocab)
    inputs.require(spec)
    return run_call(hidden, head, labels, [spec], inputs, max_chunk_bytes, num_valid, check_finite, shared=False)[0]


@outside_compile
def fused_target_losses(
    hidden: Tensor,
    head_weight: Tensor,
    labels: Tensor,
    specs: Sequence[TargetSpec],
    *,
    teacher: ResidualSource | None = None,
    reference: ResidualSource | None = None,
    previous: ResidualSource | None = None,
    old_logprobs: Tensor | None = None,
    critical: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
    bias: Tensor | None = None,
    real_vocab: int | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    max_chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    num_valid: int | None = None,
    check_finite: bool | None = None,
) -> list[LossSum]:
    """`fused_target_loss` of D designs at the same weights, differentiable in `hidden` only: two GEMMs serve them all.

    The gradient of every design is kept, D·tokens·width numbers. Arguments and errors as in `fused_target_loss`; the
    head must be frozen (ValueError), because its gradient is not shared between designs.
    """
    if head_weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError(
            "`head_weight` and `bias` must be frozen when several designs share a forward pass, but one requires a "
            "gradient; pass `head_weight.detach()`, or call `fused_target_loss` for each design"
        )
    inputs = TokenInputs(teacher, reference, previous, old_logprobs, critical, sequence_ids, weights)
    head = HeadArguments(head_weight, bias, softcap, logit_scale, real_vocab)
    for spec in specs:
        inputs.require(spec)
    return run_call(hidden, head, labels, list(specs), inputs, max_chunk_bytes, num_valid, check_finite, shared=True)
