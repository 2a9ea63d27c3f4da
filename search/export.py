"""The winner as a file that a full training run reads: target, training settings, inputs, and where it comes from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..spaces.errors import UserError
from .config import StudyConfig
from .confirm import stored_verdict
from .history import TrialRecord, best, load_history, plain_sft
from .session import find_study
from .tables import winner_sentence
from .trial import read_json, write_atomic

STACK = ("torch", "transformers", "accelerate", "datasets", "optuna")


def export_winner(study: Path, directory: Path) -> Path:
    """Write `winner.yaml` into `directory` and return its path.

    Raises UserError when no trial is complete, or when the directory already holds a winner.
    """
    config = find_study(study)
    records = load_history(config)
    winner = best(records)
    if winner is None:
        states = ", ".join(sorted({record.state for record in records})) or "none at all"
        raise UserError(
            f"an export needs a complete trial, but study {config.study!r} has only these states: {states}; "
            f"run it first: qtarget run {study}"
        )
    path = directory / "winner.yaml"
    if path.exists():
        raise UserError(f"`DIR` must not hold an export yet, but {path} exists; name another folder or remove it")
    spec = read_json(winner.folder / "spec.json")
    if spec is None:
        raise UserError(f"trial {winner.number} must have its spec, but {winner.folder}/spec.json is gone; restore it")
    write_atomic(path, render(config, winner, plain_sft(records), spec))
    return path


def _confirmation(config: StudyConfig, winner: TrialRecord) -> dict[str, Any] | str:
    """What the newest confirmation says of this winner."""
    verdict = stored_verdict(config) or {"comparisons": []}
    found = [each for each in verdict["comparisons"] if each["title"].startswith(f"trial {winner.number}: ")]
    if not found:
        return "not confirmed: the gap to plain SFT is partly luck; see `qtarget confirm`"
    return {name: found[0][name] for name in ("outcome", "effect", "low", "high", "shrunken", "adjusted_p_value")}


def render(config: StudyConfig, winner: TrialRecord, sft: TrialRecord | None, spec: Mapping[str, Any]) -> str:
    """The text of winner.yaml."""
    assert winner.target is not None
    content = {
        "target": winner.target.model_dump(mode="json", exclude_defaults=False),
        "training": spec["training"],
        "model": spec["model"],
        "teacher": spec["teacher"],
        "data": spec["data"],
        "base": str(config.base_folder),
        "provenance": {
            "study": config.study,
            "trial": winner.number,
            "spec_id": winner.spec_id,
            "seed": spec["seed"],
            "fingerprints": spec["fingerprints"],
            "score": winner.score,
            "standard_error": winner.standard_error,
            "sft_score": None if sft is None else sft.score,
            "confirmation": _confirmation(config, winner),
            "qtarget": __version__,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in STACK},
        },
    }
    header = f"# {winner.title}: the best target of study {config.study}.\n# {winner_sentence(winner, sft)}\n"
    return header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
