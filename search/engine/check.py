"""What `qtarget check` computes: loads all inputs, takes a worst-case step a kind of design, answers problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...evaluation.problems.load import spelled_golds_of, unreadable_golds
from ...evaluation.scoring.evaluate import evaluate, longest_prompt
from ...spaces import TargetSpec
from ...spaces.errors import UserError
from ...trainers.loop.preflight import worst_case_step
from ..study.config import StudyConfig
from ..study.config_file import find_study
from .channel import Channel
from .inputs import Engine

PROBLEMS = 2
"""Problems answered, to see that prompts, decoding and verification work."""


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
        "warnings": engine.warnings(),
        "fingerprints": engine.fingerprints(),
        "worst_steps": steps,
        "problems": problems,
        "backend": scoring.described_backend(),
        "retention": retention,
        "verdicts": dict(answered.verdicts),
        "first_error": answered.first_error,
        "cache_bias": bias,
        "seconds_per_problem": answered.seconds / PROBLEMS,
    }


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
