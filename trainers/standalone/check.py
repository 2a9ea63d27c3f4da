"""Is an exported loss the trial's own? Value and gradients of both on the first batch of the real data.

Hidden states are the model's, computed once; the two losses on top of them are compared in float64, so that a
difference is one of formulas and not of rounding. Gradients of all other parameters follow from those of hidden states
and head.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...spaces.target import TargetSpec
from ..data.batches import Batch, BatchOrder
from ..data.demonstrations import Demonstrations
from ..loop.objective import Objective
from ..loss import fused_target_loss
from ..loss.residual_source import HiddenHead, LabelOnly
from ..models.head import evaluating, hidden_states
from ..settings import TrainingSettings
from ..teachers.sources import FrozenModel, LabelColumn

SEQUENCES = 8
"""At most so many demonstrations are compared on."""


def compare(
    file: Path,
    model: nn.Module,
    data: Demonstrations,
    target: TargetSpec,
    settings: TrainingSettings,
    *,
    seed: int,
    reference: FrozenModel | LabelColumn | None = None,
    teacher: FrozenModel | None = None,
    pad_token_id: int = 0,
    real_vocab: int | None = None,
) -> dict[str, float]:
    """Relative differences between the loss of `file` and ours: value, and the larger of two gradients (L2)."""
    objective = Objective(model, reference, teacher, real_vocab=real_vocab)
    objective.check_needs(target, data)
    first = BatchOrder(data, settings.effective_batch, seed, pad_token_id).at(0)
    batch = next(first.micro_batches(min(SEQUENCES, settings.effective_batch))).to(objective.head.weight.device)
    case = _Case.of(objective, batch, target)
    ours, mine = case.ours()
    theirs, found = case.theirs(load(file))
    return {
        "loss": ours,
        "loss_difference": abs(ours - theirs) / max(abs(ours), 1e-30),
        "gradient_difference": max(_difference(*pair) for pair in zip(mine, found, strict=True)),
        "tokens": float(len(case.labels)),
    }


def load(file: Path) -> ModuleType:
    """An exported loss as a module."""
    spec = importlib.util.spec_from_file_location("exported_target_loss", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, eq=False)
class _Case:
    """Everything a loss looks at on one batch, in float64."""

    target: TargetSpec
    student: HiddenHead
    labels: Tensor
    models: dict[str, HiddenHead]
    columns: dict[str, Tensor | None]
    at_label: dict[str, Tensor]
    """Log-probabilities of the labels, where the data bring a model's along."""
    real_vocab: int | None

    @classmethod
    def of(cls, objective: Objective, batch: Batch, target: TargetSpec) -> _Case:
        head = objective.head
        with evaluating(objective.model):
            hidden = batch.select(hidden_states(objective.model, batch.inputs))
            old = head.label_logprobs(hidden, batch.flat_labels)
        student = HiddenHead(hidden, head.weight.detach(), head.bias, head.softcap, head.logit_scale)
        sources = {"teacher": objective.teacher, "reference": objective.reference}
        models = {name: each.rows(batch) for name, each in sources.items() if isinstance(each, FrozenModel)}
        # At the first step the previous policy is the student itself.
        models |= {"previous": student} if "previous" in target.needs else {}
        return cls(
            target=target.at(0.0),
            student=_double(student),
            labels=batch.flat_labels,
            models={name: _double(rows) for name, rows in models.items() if name in target.needs},
            columns={
                "old_logprobs": old.double() if "old_logprobs" in target.needs else None,
                "critical": batch.flat_critical,
                "sequence_ids": batch.sequence_ids,
                "weights": None if batch.flat_weights is None else batch.flat_weights.double(),
            },
            at_label={
                name: each.rows(batch).logprobs.double()
                for name, each in sources.items()
                if isinstance(each, LabelColumn) and name in target.needs
            },
            real_vocab=objective.real_vocab,
        )

    def ours(self) -> tuple[float, tuple[Tensor, ...]]:
        """Value, and gradients of hidden states and head, of the trial's loss."""
        student, leaves = self._leaves()
        loss = fused_target_loss(
            *leaves,
            self.labels,
            self.target,
            bias=student.bias,
            softcap=student.softcap,
            logit_scale=student.logit_scale,
            real_vocab=self.real_vocab,
            **self._given({**self.models, **{name: LabelOnly(each) for name, each in self.at_label.items()}}),
        ).loss_sum
        return float(loss.detach()), torch.autograd.grad(loss, leaves)

    def theirs(self, module: ModuleType) -> tuple[float, tuple[Tensor, ...]]:
        """The same of the exported loss."""
        student, leaves = self._leaves()
        models: dict[str, Any] = {name: module.Head(*_parts(rows)) for name, rows in self.models.items()}
        models |= {f"{name}_label_logprobs": each for name, each in self.at_label.items()}
        head = module.Head(*leaves, student.bias, student.softcap, student.logit_scale)
        loss = module.target_loss(head, self.labels, real_vocab=self.real_vocab, **self._given(models)).loss_sum
        return float(loss.detach()), torch.autograd.grad(loss, leaves)

    def _leaves(self) -> tuple[HiddenHead, tuple[Tensor, Tensor]]:
        student = self.student
        return student, (student.hidden.clone().requires_grad_(), student.weight.clone().requires_grad_())

    def _given(self, models: dict[str, Any]) -> dict[str, Any]:
        return {**models, **self.columns}


def _double(rows: HiddenHead) -> HiddenHead:
    hidden, weight, bias, *rest = _parts(rows)
    return HiddenHead(hidden.double(), weight.double(), None if bias is None else bias.detach().double(), *rest)


def _parts(rows: HiddenHead) -> tuple[Any, ...]:
    return rows.hidden, rows.weight, rows.bias, rows.softcap, rows.logit_scale


def _difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / ours.norm().clamp(min=1e-30))
