"""The target loss on dense logits: the reference that every other implementation is checked against.

Letters: T tokens, V vocabulary. Logits in half precision are computed in float32; float64 stays float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...spaces.numerics import log_softmax
from ...spaces.rows import Rows
from ...spaces.target import TargetSpec, design

IGNORE_INDEX = -100
"""Label of a token that is not trained on."""


class _WithGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to `logits` is given."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, valid: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(valid, gradient)
        ctx.like = logits.shape, logits.dtype
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        valid, gradient = ctx.saved_tensors
        shape, dtype = ctx.like
        full = torch.zeros(shape, dtype=dtype, device=gradient.device)
        full[valid] = (grads[0] * gradient).to(dtype)
        return full, None, None, None


def dense_target_loss(
    logits: Tensor,
    labels: Tensor,
    spec: TargetSpec,
    *,
    teacher_logits: Tensor | None = None,
    reference_logits: Tensor | None = None,
    previous_logits: Tensor | None = None,
    teacher_label_logprobs: Tensor | None = None,
    reference_label_logprobs: Tensor | None = None,
    old_logprobs: Tensor | None = None,
    critical: Tensor | None = None,
    sequence_ids: Tensor | None = None,
    weights: Tensor | None = None,
    gamma: Tensor | None = None,
    real_vocab: int | None = None,
) -> Tensor:
    """Sum over the valid tokens of the target loss; its gradient with respect to the logits is w·(ΣQ·π − Q).

    The value is the published one of the design (nats), which need not have that gradient by itself: γ, residual and
    weight are held still. Differentiable in `logits` only; without a valid token it is 0 with a zero gradient.

    Args:
        logits: (tokens, vocab), aligned with `labels`: nothing is shifted.
        labels: (tokens,), -100 = ignored.
        spec: the design; one with a schedule is passed as `spec.at(progress)`.
        teacher_logits: (tokens, vocab), or narrower when it covers all `real_vocab` entries.
        reference_logits: as `teacher_logits`, of the frozen start model.
        previous_logits: as `teacher_logits`, of the previous policy.
        teacher_label_logprobs: (tokens,) log-probability of the label, nats, instead of `teacher_logits` where the
            design looks at no more (`spec.needs_rows`).
        reference_label_logprobs: as `teacher_label_logprobs`, of the frozen start model.
        old_logprobs: (tokens,) log-probability of the label under the previous policy, nats.
        critical: (tokens,) bool, the tokens that the data marks as critical.
        sequence_ids: (tokens,) int, which sequence each token belongs to.
        weights: (tokens,) how often each token counts, above 0.
        gamma: (tokens,) trust of a family whose `scope` is `batch`, when it was computed over a larger batch than this.
        real_vocab: how many entries the tokenizer can produce; the rest of the head is padding. None: all.

    Raises:
        ValueError: a shape that does not fit, a label outside the vocabulary, or an input that the design needs and
            did not get.
    """
    columns = {
        "teacher_label_logprobs": teacher_label_logprobs,
        "reference_label_logprobs": reference_label_logprobs,
        "old_logprobs": old_logprobs,
        "critical": critical,
        "sequence_ids": sequence_ids,
        "weights": weights,
    }
    _check(logits, labels, real_vocab, columns)
    if gamma is not None and spec.gamma.scope != "batch":
        raise ValueError(
            f"`gamma` belongs to families of whole batches, but {spec.gamma.kind!r} looks at tokens; leave it out"
        )
    valid = labels != IGNORE_INDEX
    dense = {"teacher": teacher_logits, "reference": reference_logits, "previous": previous_logits}
    with torch.no_grad():
        rows = dense_rows(logits.detach(), labels, valid, dense, columns, real_vocab)
        target = design(spec, rows, None if gamma is None else gamma[valid].to(rows.label_logprobs))
        value, gradient = target.value.sum(), target.logit_gradient()
    loss: Tensor = _WithGradient.apply(logits, value, valid, gradient)  # type: ignore[no-untyped-call]
    return loss


def _check(logits: Tensor, labels: Tensor, real_vocab: int | None, columns: dict[str, Tensor | None]) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"`logits` must be (tokens, vocab) and `labels` (tokens,), but got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; flatten batch and time first"
        )
    vocab = logits.shape[1]
    if real_vocab is not None and not 1 <= real_vocab <= vocab:
        raise ValueError(f"`real_vocab` must be in [1, {vocab}], but got {real_vocab}")
    outside = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocab))
    if outside.any():
        raise ValueError(f"a label must be {IGNORE_INDEX} or in [0, {vocab}), but got {int(labels[outside][0])}")
    for name, column in columns.items():
        if column is not None and column.shape != labels.shape:
            raise ValueError(f"`{name}` must be (tokens,) = {tuple(labels.shape)}, but got {tuple(column.shape)}")


def dense_rows(
    logits: Tensor,
    labels: Tensor,
    valid: Tensor,
    dense: dict[str, Tensor | None],
    columns: dict[str, Tensor | None],
    real_vocab: int | None,
) -> Rows:
    """The valid tokens with everything that was given, in the precision of the loss.

    `dense` has logits by source, `columns` values by their name in `LabelRows`.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scores = logits[valid].to(dtype)
    chosen = labels[valid].long()
    given = {
        name: _logprobs(name, other, logits.shape, valid, dtype, real_vocab)
        for name, other in dense.items()
        if other is not None
    }
    logprobs = log_softmax(scores)
    known: dict[str, Any] = {
        name: _column(column[valid], dtype) for name, column in columns.items() if column is not None
    }
    if "critical" in known:
        known["critical"] = known["critical"].bool()
    known |= {f"{name}_label_logprobs": _of_label(given[name], chosen) for name in LABELLED if name in given}
    return Rows(
        label_logprobs=_of_label(logprobs, chosen),
        **known,
        logits=scores,
        logprobs=logprobs,
        labels=chosen,
        teacher_logprobs=given.get("teacher"),
        reference_logprobs=given.get("reference"),
        previous_logprobs=given.get("previous"),
        real_vocab=real_vocab,
    )


LABELLED = ("teacher", "reference")
"""Sources whose label log-probability a design may ask for by itself."""


def _column(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.detach().to(dtype) if values.is_floating_point() else values


def _of_label(logprobs: Tensor, labels: Tensor) -> Tensor:
    return logprobs.gather(-1, labels[:, None]).squeeze(-1)


def _logprobs(
    name: str, logits: Tensor, shape: torch.Size, valid: Tensor, dtype: torch.dtype, real_vocab: int | None
) -> Tensor:
    """log-softmax of another model's valid rows, (T, V); a head of another width is cut to the real vocabulary."""
    tokens, vocab = shape
    if logits.ndim != 2 or logits.shape[0] != tokens:
        raise ValueError(f"`{name}_logits` must be (tokens, vocab) = {tuple(shape)}, but got {tuple(logits.shape)}")
    scores = logits.detach()[valid].to(dtype)
    width = logits.shape[1]
    if width == vocab:
        return log_softmax(scores)
    if real_vocab is None or width < real_vocab:
        raise ValueError(
            f"`{name}_logits` must have the student's {vocab} entries, but got {width}; when the heads only differ in "
            f"padding, say how many entries are real with `real_vocab` (both heads must have them)"
        )
    logprobs = log_softmax(scores[:, :real_vocab])
    return torch.nn.functional.pad(logprobs, (0, vocab - real_vocab), value=-torch.inf)
