"""Memory and time of a study, estimated from the model's size and the device's speed; `qtarget check` measures them.

Orders of magnitude: what decides between full fine-tuning and adapters, and how many trials a night holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...evaluation.survey.facts import Survey

BYTES = {"bf16": 2, "fp32": 4}
FULL = {"bf16": 2 + 4 + 4 + 8, "fp32": 4 + 8}
"""Bytes a trained parameter takes beside its weight: gradient, float32 master and its gradient, AdamW's moments."""
ADAPTED = 0.02
"""Share of a model's parameters that adapters of rank 16 have, at most."""
ACTIVATIONS = 17
"""Numbers kept for the backward pass, per token, layer and width."""
CHUNK_BYTES = 3 * 2**29
"""Logits of a chunk of the loss, and what is made of them."""
ROOM = 0.8
"""Share of the device's memory that an estimate may take."""
TRAINING_SHARE, GENERATING_SHARE = 0.4, 0.05
"""Of the speed of a matrix product that training reaches, and generation."""
STEP_SECONDS, TOKEN_SECONDS = 0.02, 0.005
"""An optimiser step, and a generated token of a batch, take at least so long."""
BATCH = 64
"""Problems that are answered together."""


@dataclass(frozen=True)
class Plan:
    """What decides the costs of a trial."""

    precision: str
    lora: bool
    micro_batch: int
    effective_batch: int
    steps: int
    max_length: int
    max_new_tokens: int
    problems: int


def memory_bytes(found: Survey, plan: Plan) -> float:
    """Device memory at its peak."""
    size, weight = found.model, BYTES[plan.precision]
    teacher = 0 if found.teacher is None else found.teacher.parameters
    trained = (
        ADAPTED * size.parameters * FULL["fp32"] if plan.lora else size.parameters * (weight + FULL[plan.precision])
    )
    tokens = plan.micro_batch * plan.max_length
    kept = tokens * size.layers * size.width * ACTIVATIONS * weight
    logits = min(CHUNK_BYTES, 3 * 4 * tokens * size.vocabulary)
    return (size.parameters + teacher) * weight + trained + kept + logits


def fits(found: Survey, plan: Plan) -> bool:
    """Whether a trial fits the device."""
    return memory_bytes(found, plan) <= ROOM * found.machine.memory_bytes


def trial_seconds(found: Survey, plan: Plan) -> float:
    """Training and scoring of one trial."""
    size, speed = found.model.parameters, found.machine.multiply_flops
    teacher = 0 if found.teacher is None else found.teacher.parameters
    a_token = (4 if plan.lora else 6) * size + 2 * size + 2 * teacher  # the reference, and the teacher
    step = plan.effective_batch * mean(found.data.lengths) * a_token / (TRAINING_SHARE * speed)
    new = min(mean(found.data.answer_lengths), plan.max_new_tokens)
    batches = math.ceil(plan.problems / BATCH)
    answers = plan.problems * new * 2 * size / (GENERATING_SHARE * speed)
    return plan.steps * max(step, STEP_SECONDS) + max(answers, batches * new * TOKEN_SECONDS)


def mean(lengths: Mapping[int, int]) -> float:
    """Of how many have each length."""
    return sum(length * count for length, count in lengths.items()) / sum(lengths.values())


def quantile(lengths: Mapping[int, int], share: float) -> int:
    """The smallest length that `share` of all do not exceed."""
    left = share * sum(lengths.values())
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            return length
    return max(lengths)
