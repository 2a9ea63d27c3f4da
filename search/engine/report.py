"""What `qtarget report` computes: the designs' curves, and what the winner says about real tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...spaces import TargetSpec
from ...spaces.curves import curves
from ...spaces.errors import UserError
from ...trainers.loop.checkpoint import checkpoint_of, load_weights
from ...trainers.loop.token_view import TokenView
from ..study.config import StudyConfig
from ..study.resume import hold_against
from .channel import Channel
from .inputs import Engine

EVERY = 4
"""Of the curves' points, every so many is kept."""


def pictures(request: dict[str, Any]) -> dict[str, Any]:
    """Curves by title; `demonstrations`, `problems` and `learnt`, or the reason in `missing`."""
    designs = {title: TargetSpec.model_validate(data) for title, data in request["designs"].items()}
    found: dict[str, Any] = {"curves": {title: _curves(spec) for title, spec in designs.items()}}
    if request["config"] is None:
        return found
    try:
        config = StudyConfig.model_validate(request["config"])
        return found | tokens(config, next(iter(designs.values())), request["checkpoints"], request["fingerprints"])
    except (UserError, OSError, ValueError, ImportError) as error:  # whatever loaders raise for what is not there
        return found | {"missing": " ".join(str(error).split())[:300]}


def _curves(spec: TargetSpec) -> dict[str, list[float]]:
    found = curves(spec.at(0.0))
    return {
        name: [round(value, 5) for value in getattr(found, name)[::EVERY].tolist()]
        for name in ("p", "gamma", "label_target", "push")
    }


def tokens(
    config: StudyConfig, target: TargetSpec, checkpoints: list[str], fingerprints: dict[str, str]
) -> dict[str, Any]:
    """Demonstrations as the design sees them at the start of the training and, with a checkpoint, at its end.

    Raises UserError when the inputs are no longer those that the search has seen, its `fingerprints`.
    """
    engine = Engine(config)
    hold_against(fingerprints, engine.fingerprints(), config.study, "a report")
    resident = engine.resident
    model = resident.fresh(config.training.lora, seed=0)
    view = TokenView(model, engine.tokenizer, engine.data, target, _sources(engine, target), resident.real_vocab)
    trained = next(filter(None, (checkpoint_of(Path(folder)) for folder in checkpoints)), None)
    stages: dict[str, list[list[dict[str, Any]]]] = {}
    if trained is not None:
        load_weights(model, trained)
    numbers = view.choose(0.0 if trained is None else 1.0)
    if trained is not None:
        stages["after"] = view.show(numbers, 1.0)
        view.model = resident.fresh(config.training.lora, seed=0)
    stages["before"] = view.show(numbers, 0.0)
    shown = [
        {
            "number": number,
            "prompt": view.prompt(number),
            "stages": {name: each[place] for name, each in stages.items()},
        }
        for place, number in enumerate(numbers)
    ]
    problems = [problem for split in engine.problems.values() for problem in split]
    facts = {problem.id: problem.facts for problem in problems if problem.facts}
    return {
        "demonstrations": shown,
        "problems": facts,
        "fingerprint": engine.data.fingerprint,
        "learnt": engine.learnt(),
    }


def _sources(engine: Engine, target: TargetSpec) -> dict[str, Any]:
    """What the design looks at, and the teacher anyway: its alternatives are worth seeing."""
    found = engine.sources(target)
    if found["teacher"] is None and engine.resident.teacher is not None:
        found["teacher"] = engine.resident.teacher
    return found


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Curves of the `designs`, title to spec; with a `config` the first one on that study's demonstrations."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a report downloads nothing
    return pictures(request)
