"""The computing half of `qtarget check`: loads all inputs, takes a worst-case step a kind of design, answers problems.

Started as `python -m qtarget.search.engine_check STUDY.yaml`; reports one message, leaves the disk as it was.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..evaluation.evaluate import evaluate
from ..spaces import TargetSpec
from ..trainers.preflight import worst_case_step
from .config import StudyConfig
from .config_file import load_study
from .engine import Engine, classify
from .engine_channel import Channel, die_with_parent

PROBLEMS = 2
"""Problems answered, to see that prompts, decoding and verification work."""


def check(config: StudyConfig) -> dict[str, Any]:
    """Facts about the study's inputs and costs; raises what the night would have raised."""
    engine = Engine(config)
    bias = engine.cache_bias()
    steps = {title: _worst_case(engine, config, target) for title, target in kinds_of_design(config)}
    resident = engine.resident
    answered = evaluate(
        resident.fresh(config.training.lora, seed=0),
        engine.tokenizer,
        engine.splits.search[:PROBLEMS],
        config.evaluation,
        seed=0,
    )
    return {
        "inputs": engine.describe(),
        "fingerprints": engine.fingerprints(),
        "worst_steps": steps,
        "verdicts": dict(answered.verdicts),
        "cache_bias": bias,
        "seconds_per_problem": answered.seconds / PROBLEMS,
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


def main(path: Path) -> None:
    die_with_parent()
    channel = Channel()
    try:
        channel.send("checked", facts=check(load_study(path)))
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
