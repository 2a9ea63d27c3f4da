"""What `qtarget check` computes: loads all inputs, takes a worst-case step a kind of design, answers problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from ...evaluation.problems.load import spelled_golds_of, unreadable_golds
from ...evaluation.scoring.evaluate import evaluate, longest_prompt
from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...spaces.search_space.rates import searched_rates
from ...trainers.loop.preflight import worst_case_step
from ..study.config import StudyConfig
from ..study.config_file import find_study
from .channel import Channel
from .inputs import Engine

PROBLEMS = 16
"""Problems answered, to see that prompts, decoding and verification work, and what one takes beside others."""


def check(config: StudyConfig) -> dict[str, Any]:
    """Facts about the study's inputs and costs; raises what the night would have raised."""
    engine = Engine(config)
    bias = engine.cache_bias()
    steps = {title: _worst_case(engine, config, target) for title, target in kinds_of_design(config)}
    untrained, scoring = engine.resident.fresh(config.training.lora, seed=0), engine.scoring
    problems = check_problems(engine, config, untrained)
    scoring.prepare(untrained, lambda done, total: False)
    answered = evaluate(
        untrained,
        engine.tokenizer,
        engine.splits.search[:PROBLEMS],
        config.evaluation,
        seed=0,
        backend=scoring.backend(untrained),
    )
    _, retention = scoring.retention(untrained, None, lambda done, total: False)
    return {
        "inputs": engine.describe(),
        "learnt": engine.learnt(),
        "warnings": [*engine.warnings(), *unusual_rates(config, untrained)],
        "fast_paths": list(fast_paths(found)) if (found := device_facts(config, untrained)) else [],
        "fingerprints": engine.fingerprints(),
        "worst_steps": steps,
        "problems": problems,
        "backend": scoring.described_backend(),
        "retention": retention,
        "verdicts": dict(answered.verdicts),
        "first_error": answered.first_error,
        "cache_bias": bias,
        "checkpoint_bytes": engine.checkpoint_bytes,
        "seconds_per_problem": answered.seconds / len(answered.item_scores),
    }


def unusual_rates(config: StudyConfig, model: torch.nn.Module) -> Iterator[str]:
    """Says so where nobody gave a range of learning rates and the model's size wants others than are then searched."""
    adapters = config.training.lora is not None
    searched = searched_rates(None, adapters)
    if config.space.training.get("learning_rate") != searched:
        return
    parameters = sum(each.numel() for each in model.parameters())
    usual = searched_rates(parameters, adapters)
    if usual.low < searched.low or usual.high > searched.high:
        what = "adapters of a model" if adapters else "a model"
        yield (
            f"learning rates from {searched.low:g} to {searched.high:g} are searched, because `space.training` names "
            f"none, but usual for {what} of {parameters:,} parameters are {usual.low:g} to {usual.high:g}; "
            f"`space: {{training: {{learning_rate: [{usual.low:g}, {usual.high:g}, log]}}}}` searches these"
        )


@dataclass(frozen=True)
class DeviceFacts:
    """What decides which fast paths a GPU can take."""

    name: str
    capability: tuple[int, int]
    triton: str | None
    """Version; None: not installed."""
    precision: str
    """`training.precision`."""
    float32_products: str
    """torch's word: `highest` is full precision, `high` and `medium` allow TF32."""
    dense_loss: bool
    attention: str
    """As transformers names it."""
    flash_attention: bool
    """Whether flash-attn can be used."""
    backend: str
    """`evaluation.backend`."""
    vllm: str | None
    """Version; None: not installed."""


BF16_CAPABILITY = (8, 0)
"""GPUs from here on multiply bf16 (and TF32) in their matrix units."""


def device_facts(config: StudyConfig, model: Any) -> DeviceFacts | None:
    """None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    return DeviceFacts(
        name=torch.cuda.get_device_name(),
        capability=torch.cuda.get_device_capability(),
        triton=_version("triton"),
        precision=config.training.precision,
        float32_products=torch.get_float32_matmul_precision(),
        dense_loss=config.training.loss == "dense",
        attention=str(model.config._attn_implementation),
        flash_attention=is_flash_attn_2_available(),
        backend=config.evaluation.backend,
        vllm=_version("vllm"),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def fast_paths(facts: DeviceFacts) -> Iterator[str]:
    """Which fast paths are in use on a GPU, and why not where not, a sentence each."""
    yield _loss_path(facts)
    yield _product_path(facts)
    yield "update: AdamW in fused kernels"  # the optimiser's choice wherever all weights lie on a GPU
    yield _attention_path(facts)
    yield _packing_path(facts)
    yield _answer_path(facts)


def _loss_path(facts: DeviceFacts) -> str:
    if facts.dense_loss:
        return "loss: not in use, because `training.loss: dense` holds all logits; `fused` is the fast path"
    if facts.triton is None:
        return "loss: the Triton kernel is not in use, because Triton is not installed; plain torch computes the same"
    return f"loss: the Triton kernel (Triton {facts.triton})"


def _product_path(facts: DeviceFacts) -> str:
    able, units = facts.capability >= BF16_CAPABILITY, ".".join(map(str, facts.capability))
    if facts.precision == "bf16" and able:
        return "products: bf16 with sums in float32"
    if facts.precision == "bf16":
        return (
            f"products: bf16 is slow here, because {facts.name} (compute capability {units}) has no units for it; "
            "`training.precision: fp32` is no slower"
        )
    if facts.float32_products != "highest":
        return f"products: TF32 (float32_matmul_precision is {facts.float32_products!r}), with 10 bits of mantissa"
    more = "`training.precision: bf16` is the fast path" if able else f"{facts.name} has no faster units"
    return f"products: float32 in full; TF32 is not in use, because it would round to 10 bits of mantissa; {more}"


def _attention_path(facts: DeviceFacts) -> str:
    if facts.attention == "eager":
        return "attention: not in use, because this architecture or its configuration asks for `eager`"
    how = "torch's fused kernels (sdpa)" if facts.attention == "sdpa" else facts.attention
    return f"attention: {how}"


def _packing_path(facts: DeviceFacts) -> str:
    if facts.precision != "bf16":
        why = "flash attention needs `training.precision: bf16`"
    elif not facts.flash_attention:
        why = "flash-attn is not installed"
    else:
        return "packing (`qtarget train`): flash attention, each sequence by itself"
    return f"packing (`qtarget train`): flash attention is not in use, because {why}; packed rows mask a square"


def _answer_path(facts: DeviceFacts) -> str:
    if facts.backend == "vllm":
        return f"answers: vLLM {facts.vllm}"
    why = "is not installed (`pip install qtarget[vllm]`)" if facts.vllm is None else f"{facts.vllm} is not asked for"
    asked = "" if facts.vllm is None else "; `evaluation.backend: vllm` uses it"
    return f"answers: the {facts.backend} backend; vLLM {why}{asked}"


def check_problems(engine: Engine, config: StudyConfig, model: Any) -> dict[str, Any]:
    """What became of every task's rows, golds that no completion can match, and the longest prompt.

    Raises UserError when no gold can be matched, or a prompt is too long.
    """
    problems = (*engine.splits.search, *engine.splits.report)
    unusable = unreadable_golds(problems)
    if len(unusable) == len(problems):
        gold, why = unusable[0][0].gold, unusable[0][1]
        raise UserError(
            f"Golds must be readable, but those of all {len(problems)} problems are not (first: {gold[:80]!r}, {why}); "
            "check `answer_column` and `kind`",
            field="evaluation.tasks",
        )
    return {
        "tasks": [counts.model_dump() for counts in engine.splits.counts],
        "unusable_golds": [{"id": each.id, "gold": each.gold[:80], "why": why} for each, why in unusable],
        "spelled_golds": [gold[:80] for gold in spelled_golds_of(problems)],
        "longest_prompt": longest_prompt(model, engine.tokenizer, problems, config.evaluation.max_new_tokens),
    }


def kinds_of_design(config: StudyConfig) -> Iterator[tuple[str, TargetSpec]]:
    """The first baseline for every combination of inputs that designs of this study look at."""
    seen: set[frozenset[str]] = set()
    for baseline in config.baseline_settings():
        target = baseline.target()
        if target.needs not in seen:
            seen.add(target.needs)
            yield baseline.preset, target


def _worst_case(engine: Engine, config: StudyConfig, target: TargetSpec) -> dict[str, Any]:
    resident = engine.resident
    worst = worst_case_step(
        resident.fresh(config.training.lora, seed=0),
        engine.data,
        target,
        config.training,
        **engine.sources(target),
        pad_token_id=resident.pad_token_id,
        real_vocab=resident.real_vocab,
    )
    return dataclasses.asdict(worst)


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Facts about the study file `request["study"]`; the disk stays as it was."""
    return check(find_study(Path(request["study"])))
