"""One worst-case step before a night begins: the longest demonstrations, full micro-batches, everything allocated."""

from __future__ import annotations

import copy
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...spaces.target import TargetSpec
from ..data.batches import Batch, collate
from ..data.demonstrations import Demonstrations
from ..settings import TrainingSettings
from ..teachers.sources import FrozenModel, Source
from .objective import Objective
from .optimizer import Optimizer

WARM_UP_SECONDS = 5.0
"""A first pass on the CPU that takes less is repeated: much of it may not have been the pass itself."""


@dataclass(frozen=True)
class WorstCase:
    """What the largest step of a run costs."""

    seconds: float
    """Time of a whole optimiser step if all its micro-batches were the worst one."""
    peak_bytes: int
    """Device memory at its peak; on the CPU the peak of the process since its start."""
    tokens: int
    """Padded positions of the worst micro-batch."""
    longest: int
    """Tokens of the longest demonstration."""
    usual_seconds: float
    """Time of a step whose demonstrations are as long as the mean one: what to expect of many."""


def worst_case_step(
    model: nn.Module,
    data: Demonstrations,
    target: TargetSpec,
    settings: TrainingSettings,
    *,
    reference: Source | None = None,
    teacher: Source | None = None,
    pad_token_id: int = 0,
    real_vocab: int | None = None,
) -> WorstCase:
    """Forward, backward and an update with learning rate 0 on the longest demonstrations; the weights stay as they are.

    Raises UserError when the target needs something that is not given, and whatever a lack of memory raises.
    """
    objective = Objective(model, reference, teacher, dense=settings.loss == "dense", real_vocab=real_vocab)
    objective.check_needs(target, data)
    device = objective.head.weight.device
    batch = longest_batch(data, settings.micro_batch, pad_token_id).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    optimizer = Optimizer(model, settings)
    training = model.training
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        started = time.perf_counter()
        _forward_backward(objective, batch, target)
        if _elapsed(started, device) < WARM_UP_SECONDS or device.type == "cuda":
            # the first pass compiles kernels and loads libraries, which no other step pays
            optimizer.clear()
            started = time.perf_counter()
            _forward_backward(objective, batch, target)
    optimizer.collect()
    in_micro_batch = _elapsed(started, device)
    optimizer.clip()
    optimizer.step(0.0)
    in_update = _elapsed(started, device) - in_micro_batch
    model.train(training)
    lengths = [example.length for example in data]
    passes = in_micro_batch * (settings.effective_batch // settings.micro_batch)
    return WorstCase(
        seconds=passes + in_update,
        peak_bytes=_peak_bytes(device),
        tokens=batch.inputs.numel(),
        longest=max(len(example.token_ids) for example in data),
        usual_seconds=passes * sum(lengths) / len(lengths) / max(lengths) + in_update,
    )


def longest_batch(data: Demonstrations, size: int, pad_token_id: int) -> Batch:
    """The `size` longest demonstrations; they repeat where there are fewer."""
    ranked = sorted(range(len(data)), key=lambda index: (-data[index].length, index))
    indices = [ranked[number % len(ranked)] for number in range(size)]
    return collate([data[index] for index in indices], indices, pad_token_id)


def _forward_backward(objective: Objective, batch: Batch, target: TargetSpec) -> None:
    given: dict[str, Any] = {}
    if "old_logprobs" in target.needs:
        given["old_logprobs"] = torch.zeros(len(batch.flat_labels), device=batch.labels.device)
    if "previous" in target.needs:
        given["previous"] = FrozenModel(copy.deepcopy(objective.model)).rows(batch)
    loss = objective.loss(batch, target.at(0.0), **given)
    torch.autograd.backward(loss.loss_sum / len(batch.flat_labels))


def _elapsed(started: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
