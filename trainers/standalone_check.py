"""Is an exported loss the trial's own? Value and gradient of both on the first batch of the real data."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..spaces.target import TargetSpec
from .batches import Batch, BatchOrder
from .demonstrations import IGNORE_INDEX, Demonstrations
from .head import hidden_states
from .objective import Objective
from .residual_source import HiddenHead
from .settings import TrainingSettings
from .sources import FrozenModel

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
    reference: FrozenModel | None = None,
    teacher: FrozenModel | None = None,
    pad_token_id: int = 0,
    real_vocab: int | None = None,
) -> dict[str, float]:
    """Relative differences of loss and gradient (over all trainable parameters, L2) between `file` and our loss."""
    objective = Objective(model, reference, teacher, real_vocab=real_vocab)
    objective.check_needs(target, data)
    first = BatchOrder(data, settings.effective_batch, seed, pad_token_id).at(0)
    batch = next(first.micro_batches(min(SEQUENCES, settings.effective_batch))).to(objective.head.weight.device)
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    previous = FrozenModel(model) if "previous" in target.needs else None
    for parameter in parameters:
        parameter.requires_grad_(True)
    old = None
    if "old_logprobs" in target.needs:
        with torch.no_grad():
            old = objective.head.label_logprobs(batch.select(hidden_states(model, batch.inputs)), batch.flat_labels)
    ours = objective.loss(
        batch, target.at(0.0), old_logprobs=old, previous=None if previous is None else previous.rows(batch)
    ).loss_sum
    theirs = _exported(load(file), objective, batch, previous, old)
    mine, found = (_gradient(loss, parameters) for loss in (ours, theirs))
    return {
        "loss": float(ours),
        "loss_difference": float((ours - theirs).abs() / ours.abs().clamp(min=1e-30)),
        "gradient_difference": float((mine - found).norm() / mine.norm().clamp(min=1e-30)),
        "tokens": float(len(batch.flat_labels)),
    }


def load(file: Path) -> ModuleType:
    """An exported loss as a module."""
    spec = importlib.util.spec_from_file_location("exported_target_loss", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _exported(
    module: ModuleType, objective: Objective, batch: Batch, previous: FrozenModel | None, old: Tensor | None
) -> Tensor:
    head = objective.head
    hidden = hidden_states(objective.model, batch.inputs).flatten(0, 1)
    labels = batch.labels.flatten()
    sources = {"teacher": objective.teacher, "reference": objective.reference, "previous": previous}
    given: dict[str, Any] = {
        name: module.Head(*_spread(source.rows(batch), batch, len(labels)))
        for name, source in sources.items()
        if isinstance(source, FrozenModel)
    }
    given["sequence_ids"] = torch.arange(len(batch.labels), device=labels.device).repeat_interleave(
        batch.labels.shape[1]
    )
    given["critical"] = None if batch.critical is None else batch.critical.flatten()
    if old is not None:
        given["old_logprobs"] = old.new_zeros(len(labels)).masked_scatter(labels != IGNORE_INDEX, old)
    student = module.Head(hidden, head.weight, head.bias, head.softcap, head.logit_scale)
    loss: Tensor = module.target_loss(student, labels, real_vocab=objective.real_vocab, **given).loss_sum
    return loss


def _spread(rows: HiddenHead, batch: Batch, tokens: int) -> tuple[Any, ...]:
    """Hidden states of the positions with a loss, at their places among all positions."""
    hidden = rows.hidden.new_zeros(tokens, rows.hidden.shape[1]).index_copy(0, batch.positions, rows.hidden)
    return hidden, rows.weight, rows.bias, rows.softcap, rows.logit_scale


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
