"""Trust that looks at a whole batch, over the whole effective batch: a first pass without gradients.

Without it such a design would mean something else at every micro-batch. The pass costs one more forward, so it is made
only where an effective batch is cut and the design really looks across sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...spaces.rows import LabelRows
from ...spaces.target import TargetSpec, trust
from ..data.batches import Batch, EffectiveBatch
from ..models.head import evaluating, hidden_states
from ..teachers.sources import Source, label_logprobs
from .objective import Objective
from .old_policy import OldPolicy


def needs_trust_pass(target: TargetSpec, num_micro_batches: int) -> bool:
    """Whether γ over the effective batch differs from γ over each of its micro-batches, which hold whole sequences."""
    across = target.gamma.scope == "batch" and not target.gamma.within_sequence
    return across and num_micro_batches > 1


def batch_trust(
    objective: Objective, target: TargetSpec, batch: EffectiveBatch, micro_batch: int, old_policy: OldPolicy | None
) -> Tensor:
    """γ of all tokens of an effective batch with a loss, shape (T,), in the order of its micro-batches."""
    device = objective.head.weight.device
    with evaluating(objective.model):
        parts = []
        for part in batch.micro_batches(micro_batch):
            old = None if old_policy is None else old_policy.rows(batch, part)
            parts.append(_label_rows(objective, target, part.to(device), old))
        return trust(target, _joined(parts))


def _label_rows(objective: Objective, target: TargetSpec, batch: Batch, old_logprobs: Tensor | None) -> LabelRows:
    needs = target.gamma.needs

    def of(name: str, source: Source | None) -> Tensor | None:
        return label_logprobs(source, batch) if source is not None and name in needs else None

    others = {"teacher": of("teacher", objective.teacher), "reference": of("reference", objective.reference)}
    frozen = next((logprobs for logprobs in others.values() if logprobs is not None), None)
    if target.gamma.asks_student or frozen is None:
        hidden = batch.select(hidden_states(objective.model, *batch.read))
        own = objective.head.label_logprobs(hidden, batch.flat_labels)
    else:  # nobody looks at it, and a frozen source spares the pass
        own = frozen
    return LabelRows(
        label_logprobs=own,
        teacher_label_logprobs=others["teacher"],
        reference_label_logprobs=others["reference"],
        old_logprobs=None if old_logprobs is None else old_logprobs.to(batch.labels.device),
        critical=batch.flat_critical,
        sequence_ids=batch.sequence_ids,
    )


def _joined(parts: list[LabelRows]) -> LabelRows:
    def join(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)

    logprobs = torch.cat([part.label_logprobs for part in parts])
    others = ("teacher_label_logprobs", "reference_label_logprobs", "old_logprobs", "critical", "sequence_ids")
    return LabelRows(logprobs, **{name: join(name) for name in others})
