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
from ..loss.residual_source import CachedSlice, HiddenHead
from ..models.head import OutputHead, evaluating, hidden_states
from ..teachers.sources import Source
from .objective import Objective
from .old_policy import OldPolicy

WITHIN_A_SEQUENCE = frozenset({"likelihood_ratio", "sigmoid_ratio"})
"""Families of batch scope whose trust depends on the token's own sequence only: a micro-batch holds it whole."""


def needs_trust_pass(target: TargetSpec, num_micro_batches: int) -> bool:
    """Whether γ over the effective batch differs from γ over each of its micro-batches."""
    across = target.gamma.scope == "batch" and target.gamma.kind not in WITHIN_A_SEQUENCE
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
        return _source_logprobs(source, batch) if source is not None and name in needs else None

    return LabelRows(
        label_logprobs=objective.head.label_logprobs(
            batch.select(hidden_states(objective.model, batch.inputs, batch.position_ids)), batch.flat_labels
        ),
        teacher_label_logprobs=of("teacher", objective.teacher),
        reference_label_logprobs=of("reference", objective.reference),
        old_logprobs=None if old_logprobs is None else old_logprobs.to(batch.labels.device),
        critical=batch.flat_critical,
        sequence_ids=batch.sequence_ids,
    )


def _source_logprobs(source: Source, batch: Batch) -> Tensor:
    rows, labels = source.rows(batch), batch.flat_labels
    if isinstance(rows, CachedSlice):
        return rows.label_logprob.float()
    if isinstance(rows, HiddenHead):
        head = OutputHead(rows.weight, rows.bias, rows.softcap, rows.logit_scale)
        return head.label_logprobs(rows.hidden, labels)
    return rows.gather(1, labels.unsqueeze(1)).squeeze(1)


def _joined(parts: list[LabelRows]) -> LabelRows:
    def join(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)

    logprobs = torch.cat([part.label_logprobs for part in parts])
    others = ("teacher_label_logprobs", "reference_label_logprobs", "old_logprobs", "critical", "sequence_ids")
    return LabelRows(logprobs, **{name: join(name) for name in others})
