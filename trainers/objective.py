"""The loss of one micro-batch under a target: decoder, sources and the target loss put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..spaces.errors import UserError
from ..spaces.target import TargetSpec
from .batches import Batch
from .demonstrations import Demonstrations
from .head import OutputHead, hidden_states, output_head
from .loss import LossSum, dense_target_loss, fused_target_loss
from .residual_source import HiddenHead, ResidualSource
from .sources import Source


@dataclass(eq=False)
class Objective:
    """What a fine-tune minimises, apart from the schedule."""

    model: nn.Module
    reference: Source | None = None
    teacher: Source | None = None
    dense: bool = False
    """Materialise (T, V) logits; for checks only."""
    real_vocab: int | None = None
    """Entries the tokenizer can produce; None: every row of the head."""

    def __post_init__(self) -> None:
        self.head = output_head(self.model)

    def loss(self, batch: Batch, target: TargetSpec, old_logprobs: Tensor | None = None) -> LossSum:
        """Sums over the T positions of the batch that carry a loss; differentiable in the model."""
        teacher = self.teacher.rows(batch) if self.teacher and "teacher" in target.needs else None
        reference = self.reference.rows(batch) if self.reference and "reference" in target.needs else None
        hidden = hidden_states(self.model, batch.inputs)[batch.valid]
        columns: dict[str, Any] = {
            "old_logprobs": old_logprobs,
            "critical": batch.flat_critical,
            "sequence_ids": batch.sequence_ids,
            "real_vocab": self.real_vocab,
        }
        if self.dense:
            return self._dense(hidden, batch.flat_labels, target, teacher, reference, columns)
        return fused_target_loss(
            hidden,
            self.head.weight,
            batch.flat_labels,
            target,
            teacher=teacher,
            reference=reference,
            bias=self.head.bias,
            softcap=self.head.softcap,
            logit_scale=self.head.logit_scale,
            **columns,
        )

    def _dense(
        self,
        hidden: Tensor,
        labels: Tensor,
        target: TargetSpec,
        teacher: ResidualSource | None,
        reference: ResidualSource | None,
        columns: dict[str, Any],
    ) -> LossSum:
        logits = self.head.logits(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss = dense_target_loss(
            logits, labels, target, teacher_logits=_logits(teacher), reference_logits=_logits(reference), **columns
        )
        logprobs = logits.detach().log_softmax(-1)
        label_probs = logprobs.gather(1, labels.unsqueeze(1)).exp()
        return LossSum(loss, len(labels), label_probs.sum(), torch.special.entr(logprobs.exp()).sum())

    def check_needs(self, target: TargetSpec, data: Demonstrations) -> None:
        """Raise UserError when the target looks at something this run does not have."""
        given = {
            "teacher": (self.teacher is not None, "name a teacher model under `teacher`"),
            "reference": (self.reference is not None, "keep the base model as reference"),
            "critical": (data.has_critical, "name the column with the spans in `data.critical_column`"),
        }
        for need, (there, remedy) in given.items():
            if need in target.needs and not there:
                raise UserError(
                    f"target {target.title()!r} needs {need!r}, but this run has none; {remedy}, or choose "
                    "another target",
                    field="target",
                )


def _logits(source: ResidualSource | None) -> Tensor | None:
    """Dense rows of a source; log-probabilities are logits."""
    if source is None or isinstance(source, Tensor):
        return source
    if isinstance(source, HiddenHead):
        return OutputHead(source.weight, source.bias, source.softcap, source.logit_scale).logits(source.hidden)
    raise UserError(
        "`loss: dense` needs whole distributions, but the teacher comes from a top-k cache; use `loss: fused`",
        field="train.loss",
    )
