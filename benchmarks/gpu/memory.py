"""Part f: memory that does not suffice, in training, scoring and cache building: caught, halved, and the same results.

On a GPU torch's allocator is allowed a share of what the work took before, so allocations really fail; without one a
hook refuses passes of too many sequences, which tries the script and not the memory.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qtarget.evaluation.generation.batched import generate
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.spaces import presets
from qtarget.trainers.loop.sft import StepReport, train
from qtarget.trainers.models.head import decoder_of
from qtarget.trainers.models.memory import out_of_memory, release
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.format import CacheKey
from qtarget.trainers.teachers.sources import FrozenModel

from .made import Sizes, demonstrations, device, llama, peak, tokenizer
from .run import Measurement

MODEL = {"num_hidden_layers": 4, "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 8}
"""What is smaller than in part c at full size."""
ROOM = 0.4
"""Share of the memory that the whole batch took."""
LOSS_GAP = 1e-3
SEQUENCES = 64


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    yield Measurement("training", 12, lambda: training(sizes))
    yield Measurement("scoring", 10, lambda: scoring(sizes))
    yield Measurement("cache", 8, lambda: caches(sizes))


def model_of(sizes: Sizes, dtype: torch.dtype) -> Any:
    return llama(sizes.model, dtype, **(MODEL if sizes.name == "full" else {}))


@contextmanager
def little_memory(model: nn.Module, needed: int | None, most: int) -> Iterator[None]:
    """Inside, less than `needed` bytes can be had; without a GPU, no pass of more than `most` sequences."""
    if torch.cuda.is_available():
        assert needed is not None
        release()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM * needed) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def refuse(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(named.get("sequence_lengths") or named["input_ids"]) > most:  # of packed rows the lengths are told
            raise torch.OutOfMemoryError("refused by a hook: out of memory")

    hook = decoder_of(model).register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class Warnings(logging.Handler):
    """Counts what the library says about memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def heard() -> Iterator[list[str]]:
    handler, root = Warnings(), logging.getLogger("qtarget")
    root.addHandler(handler)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)


def training(sizes: Sizes) -> dict[str, Any]:
    """The micro-batch halves until it fits, as a study's supervisor has it, and the losses stay."""
    with peak() as memory:
        expected = _losses(sizes, SEQUENCES, model_of(sizes, torch.bfloat16))
    micro, tried = SEQUENCES, []
    while True:
        model = model_of(sizes, torch.bfloat16)
        tried.append(micro)
        try:
            with little_memory(model, memory["bytes"], SEQUENCES // 4):
                found = _losses(sizes, micro, model)
            break
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or micro == 1:
                raise
        del model
        micro //= 2
        release()
    gap = max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
    return {
        "micro_batches": tried,
        "peak_extra_bytes": memory["bytes"],
        "largest_loss_gap": gap,
        "passes": len(tried) > 1 and gap <= LOSS_GAP,
    }


def _losses(sizes: Sizes, micro: int, model: Any) -> list[float]:
    data = demonstrations(SEQUENCES, sizes.lengths, sizes.model["vocab_size"])
    given = TrainingSettings(steps=3, effective_batch=SEQUENCES, micro_batch=micro, precision="bf16")
    losses: list[float] = []

    def keep(report: StepReport) -> bool:
        losses.append(report.loss)
        return False

    train(model.requires_grad_(True), data, presets.get("sft"), given, seed=0, folder=None, on_step=keep)
    return losses


def scoring(sizes: Sizes) -> dict[str, Any]:
    """A running batch that outgrows the memory halves itself, and the answers stay."""
    model, words = model_of(sizes, torch.float32), tokenizer(sizes.model["vocab_size"])
    generator = torch.Generator().manual_seed(0)
    longest = sizes.lengths[1]
    prompts = torch.randint(3, sizes.model["vocab_size"], (SEQUENCES, longest), generator=generator).tolist()
    requests = [Request(number, tuple(prompt[: longest - number % 4])) for number, prompt in enumerate(prompts)]
    sampling = Sampling(min(16, sizes.new_tokens), frozenset({2}), batch_size=SEQUENCES)

    def answers() -> dict[int, tuple[int, ...]]:
        return {each.index: each.tokens for each in generate(model, words, requests, sampling)}

    with peak() as memory:
        expected = answers()
    with heard() as lines, little_memory(model, memory["bytes"], SEQUENCES // 4):
        found = answers()
    same = sum(found[number] == tokens for number, tokens in expected.items())
    return {"said": lines, "equal": f"{same} of {len(expected)}", "passes": bool(lines) and same >= 0.9 * len(expected)}


def caches(sizes: Sizes) -> dict[str, Any]:
    """A teacher's pass that finds no memory is made in halves, and the cache says the same."""
    data = demonstrations(SEQUENCES, sizes.lengths, sizes.model["vocab_size"])
    teacher = FrozenModel(model_of(sizes, torch.float32))
    key = CacheKey(
        model="random", tokenizer="none", data=data.fingerprint, template="none", max_length=sizes.lengths[1],
        vocab=sizes.model["vocab_size"], k=sizes.loss[3], dtype="float32",
    )  # fmt: skip

    def rows(root: str, batch_tokens: int) -> Any:
        path = build(teacher, data, key, Path(root), pad_token_id=0, batch_tokens=batch_tokens)
        return TeacherCache.open(path, key).rows(range(0, len(data), 5))

    batch_tokens = SEQUENCES * sizes.lengths[1]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        with peak() as memory:
            expected = rows(one, batch_tokens)
        with heard() as lines, little_memory(teacher.model, memory["bytes"], SEQUENCES // 4):
            found = rows(other, batch_tokens)
    gap = float((found.label_logprob - expected.label_logprob).abs().max())
    return {"said": lines, "largest_gap_nats": gap, "device": str(device()), "passes": bool(lines) and gap <= 1e-3}
