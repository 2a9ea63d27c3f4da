"""The loss of one micro-batch under a target: decoder, sources and the target loss put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.target import TargetSpec
from ..data.batches import Batch
from ..data.demonstrations import Demonstrations
from ..loss import LossSum, dense_target_loss, fused_target_loss
from ..loss.residual_source import HiddenHead, LabelOnly, ResidualSource
from ..models.head import OutputHead, hidden_states, output_head
from ..teachers.sources import LabelColumn, Source


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

    def loss(
        self,
        batch: Batch,
        target: TargetSpec,
        *,
        old_logprobs: Tensor | None = None,
        previous: ResidualSource | None = None,
        gamma: Tensor | None = None,
    ) -> LossSum:
        """Sums over the T positions of the batch that carry a loss; differentiable in the model."""
        hidden, labels = (
            batch.select(hidden_states(self.model, *batch.read)),
            batch.flat_labels,
        )
        sources: dict[str, Any] = {
            "teacher": self.teacher.rows(batch) if self.teacher and "teacher" in target.needs else None,
            "reference": self.reference.rows(batch) if self.reference and "reference" in target.needs else None,
            "previous": previous,
        }
        columns: dict[str, Any] = {
            "old_logprobs": old_logprobs,
            "critical": batch.flat_critical,
            "sequence_ids": batch.sequence_ids,
            "weights": batch.flat_weights,
            "gamma": gamma,
            "real_vocab": self.real_vocab,
        }
        with torch.set_grad_enabled(not self.dense):
            total = fused_target_loss(
                hidden,
                self.head.weight,
                labels,
                target,
                bias=self.head.bias,
                softcap=self.head.softcap,
                logit_scale=self.head.logit_scale,
                num_valid=len(labels),
                check_finite=False,  # the training loop looks at the loss of the step and at its gradient
                **sources,
                **columns,
            )
        if not self.dense:
            return total
        logits = self.head.logits(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        rows: dict[str, Any] = dict(_dense(name, source) for name, source in sources.items() if source is not None)
        return replace(total, loss_sum=dense_target_loss(logits, labels, target, **rows, **columns))

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
        if isinstance(self.reference, LabelColumn) and not data.has_reference_logprobs:
            raise UserError(
                "every demonstration must have the reference's log-probabilities, but not all have; name their column "
                "in `data.reference_logprob_column`",
                field="data.reference_logprob_column",
            )


def _dense(name: str, source: ResidualSource) -> tuple[str, Tensor]:
    """A source as an argument of the dense loss; log-probabilities are logits."""
    if isinstance(source, LabelOnly):
        return f"{name}_label_logprobs", source.logprobs
    if isinstance(source, Tensor):
        return f"{name}_logits", source
    if isinstance(source, HiddenHead):
        head = OutputHead(source.weight, source.bias, source.softcap, source.logit_scale)
        return f"{name}_logits", head.logits(source.hidden)
    raise UserError(
        "`loss: dense` needs whole distributions, but the teacher comes from a top-k cache; use `loss: fused`",
        field="train.loss",
    )
