"""Part c: whole training steps of a Llama of 1.5 billion random weights, as shares of what its matrix products allow.

Useful tokens only: padding is computed and not counted. The limit of a step is its own matrix products at the rate that
one large product reaches in the same process: 6 FLOPs a weight and token where weights are trained, 4 where they are
frozen below adapters, attention to the past, the head at the labelled tokens.
Letters: P weights of the decoder's linear layers, L layers, H width, V vocabulary.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qtarget.spaces import presets
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.loop.optimizer import Optimizer
from qtarget.trainers.loop.packing import pack, prepare_packing
from qtarget.trainers.loop.sft import StepReport, train
from qtarget.trainers.models.head import decoder_of
from qtarget.trainers.models.lora import attach_lora, detached
from qtarget.trainers.settings import LoraSettings, TrainingSettings
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.format import CacheKey
from qtarget.trainers.teachers.sources import CachedModel, FrozenModel

from .made import Sizes, demonstrations, device, llama, peak, wait
from .run import Measurement

WARM_STEPS = 2
SFT, WITH_REFERENCE = presets.get("sft"), presets.get("sft_kl")


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    @cache
    def model() -> Any:
        return llama(sizes.model, torch.bfloat16)

    @cache
    def rate() -> float:
        return product_rate(8192 if torch.cuda.is_available() else 256)

    def case(seconds: float, name: str, **how: Any) -> Measurement:
        return Measurement(name, seconds, lambda: steps(sizes, model(), rate(), **how))

    yield Measurement("rate", 6, lambda: {"product_flops": rate()})
    yield case(12, "full")
    yield case(10, "full-packed", packed=True)
    yield Measurement("reference", 18, lambda: live_against_cached(sizes, model()))
    yield Measurement("optimizer", 8, lambda: optimizers(model()))
    yield case(10, "lora", lora=True)
    if torch.cuda.is_available():
        yield case(25, "full-compiled", compiled=True)
        yield case(20, "lora-compiled", lora=True, compiled=True)


def product_rate(size: int) -> float:
    """FLOPs a second of one square product on random numbers, bf16: the median of ten after three."""
    left, right = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        wait()
        started = time.perf_counter()
        torch.mm(left, right)
        wait()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[3:])


def settings(sizes: Sizes, **changes: Any) -> TrainingSettings:
    effective, micro = sizes.batch
    given = {"steps": sizes.steps, "effective_batch": effective, "micro_batch": micro, "precision": "bf16"}
    return TrainingSettings.model_validate(given | changes)


def data_of(sizes: Sizes) -> Demonstrations:
    return demonstrations(sizes.batch[0], sizes.lengths, sizes.model["vocab_size"])


def seconds_of_steps(model: nn.Module, data: Demonstrations, given: TrainingSettings, **more: Any) -> list[float]:
    """Seconds of each step after the first ones, as the training loop itself reports them."""
    found: list[float] = []

    def keep(report: StepReport) -> bool:
        found.append(report.seconds)
        return False

    train(model, data, more.pop("target", SFT), given, seed=0, folder=None, on_step=keep, **more)
    return found[min(WARM_STEPS, len(found) - 1) :]


def steps(
    sizes: Sizes, model: Any, rate: float, *, packed: bool = False, lora: bool = False, compiled: bool = False
) -> dict[str, Any]:
    """One way to train, on the same data. Every step sees all of it once."""
    data = data_of(sizes)
    trained: Any = attach_lora(model, LoraSettings(), 0) if lora else model.requires_grad_(True)
    layers = list(decoder_of(model).layers)
    attention = prepare_packing(model) if packed else str(model.config._attn_implementation)
    started = time.perf_counter()
    try:
        if compiled:
            for layer in layers:  # one at a time: all are alike, and compile once
                layer.compile(dynamic=True)
        with peak() as memory:
            given = settings(sizes, lora=LoraSettings() if lora else None)
            seconds = seconds_of_steps(trained, data, given, **({"layout": pack} if packed else {}))
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
        if lora:
            detached(trained)
        if packed:
            model.set_attn_implementation("sdpa")
        torch.compiler.reset()
    median = statistics.median(seconds)
    tokens = sum(example.length for example in data)
    flops = step_flops(model, data, lora=lora)
    return {
        "seconds": median,
        "tokens_per_second": tokens / median,
        "share_of_products": flops / rate / median,
        "tokens": tokens,
        "attention": attention,
        "peak_extra_bytes": memory["bytes"],
        "seconds_in_all": time.perf_counter() - started,
    }


def step_flops(model: Any, data: Demonstrations, *, lora: bool) -> float:
    """FLOPs of the matrix products of one step over the useful tokens, forward and backward."""
    config = model.config
    weights = sum(each.weight.numel() for each in decoder_of(model).modules() if isinstance(each, nn.Linear))
    head = config.hidden_size * config.vocab_size
    per_weight = 4 if lora else 6
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(example.length**2 for example in data)
    tokens, labels = sum(example.length for example in data), data.num_labels
    return float(per_weight * (weights * tokens + head * labels) + attention)


def live_against_cached(sizes: Sizes, model: Any) -> dict[str, Any]:
    """G10: a step with the reference asked live, and with its cache, which is built here too."""
    data = data_of(sizes)
    reference = FrozenModel(llama(sizes.model, torch.bfloat16))
    given = settings(sizes)
    model.requires_grad_(True)
    live = seconds_of_steps(model, data, given, target=WITH_REFERENCE, reference=reference)
    vocab, entries = sizes.model["vocab_size"], sizes.loss[3]
    key = CacheKey(
        model="random", tokenizer="none", data=data.fingerprint, template="none", max_length=sizes.lengths[1],
        vocab=vocab, k=entries, precision="bf16",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        path = build(reference, data, key, Path(folder), pad_token_id=0)
        built = time.perf_counter() - started
        cached = CachedModel(TeacherCache.open(path, key))
        del reference
        quick = seconds_of_steps(model, data, given, target=WITH_REFERENCE, reference=cached)
    found = statistics.median(live) / statistics.median(quick)
    return {
        "live_seconds": statistics.median(live),
        "cached_seconds": statistics.median(quick),
        "cache_tokens_per_second": data.num_labels / built,
        "ratios": {"G10 step with a live reference / cached": {"medians": found, "rule": ">=", "limit": 1.25}},
    }


def optimizers(model: Any) -> dict[str, Any]:
    """An update of all weights, clipping and rounding included: ours, and torch's fused AdamW in separate passes."""
    model.requires_grad_(True)
    given = TrainingSettings(precision="bf16")
    found: dict[str, Any] = {"ours_seconds": _update_seconds(model, _ours(model, given))}
    found["torch_fused_seconds"] = _update_seconds(model, _torch_fused(model, given))
    return found


def _ours(model: Any, given: TrainingSettings) -> Callable[[], object]:
    optimizer = Optimizer(model, given)

    def update() -> None:
        optimizer.collect()
        optimizer.clip()
        optimizer.step(0.0)

    return update


def _torch_fused(model: Any, given: TrainingSettings) -> Callable[[], object]:
    masters = {parameter: parameter.detach().float().requires_grad_() for parameter in model.parameters()}
    adamw = torch.optim.AdamW(masters.values(), lr=0.0, betas=given.adam_betas, fused=True)

    def update() -> None:
        for parameter, master in masters.items():
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        nn.utils.clip_grad_norm_(masters.values(), 1.0)
        adamw.step()
        with torch.no_grad():
            for parameter, master in masters.items():
                parameter.copy_(master)
                master.grad = None

    return update


def _update_seconds(model: Any, update: Callable[[], object]) -> float:
    seconds: list[float] = []
    for _ in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        wait()
        started = time.perf_counter()
        update()
        wait()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
