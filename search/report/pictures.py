"""What a report shows of designs and real tokens: computed once where the models are, kept in the study's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from ...spaces import TargetSpec, presets
from ...spaces.identity import content_id
from ..study.files import write_json
from ..terminal.progress import ask_and_show
from ..terminal.verdict import decisive
from .data import StudyData

FILE = "pictures-{}.json"
"""In the study's folder; named after the designs, so that another winner is another file."""


def designs(data: StudyData) -> dict[str, TargetSpec]:
    """The winner's design, then those to compare it with."""
    found: dict[str, TargetSpec] = {}
    if data.winner is not None and data.winner.target is not None:
        found["winner"] = data.winner.target
    found |= {name: presets.get(name) for name in ("sft", "dft")}
    if data.config is None or data.config.teacher is not None:
        found["target_sft"] = presets.get("target_sft")
    return found


def pictures(data: StudyData, console: Console, *, compute: bool = True) -> Mapping[str, Any]:
    """`curves`, `demonstrations` and `problems`, as far as they can be had; `missing` says why anything is not there.

    With `compute` a process that may load the models fills what is not in the study's folder yet.
    """
    wanted = designs(data)
    described = {title: spec.model_dump(mode="json") for title, spec in wanted.items()}
    file = data.folder / FILE.format(content_id(described)[:8])
    kept = _kept(file)
    if "demonstrations" in kept or not compute:
        return kept or {"missing": "they were not computed when the models were at hand, and must not be now"}
    inputs = None
    if data.config is not None and "winner" in wanted:
        inputs = data.config.model_dump(mode="json")
    request = {
        "designs": described,
        "config": inputs,
        "fingerprints": data.attributes.get("fingerprints", {}),
        "checkpoints": [str(file) for file in _checkpoints(data)],
    }
    found = _computed(request, console)
    if "curves" in found:
        with suppress(OSError):  # the folder may be one that others may only read
            write_json(file, found)
    return found


def _checkpoints(data: StudyData) -> list[Path]:
    """Where weights that the winner's design has trained may lie: its trial, and its replicates in the confirmation."""
    confirmed = data.confirmation.records if data.confirmation is not None else ()
    named = decisive(data.verdict)["title"] if data.verdict is not None else None
    trained = [data.winner, *(record for record in confirmed if record.title == named)]
    return [record.folder for record in trained if record is not None]


def _computed(request: Mapping[str, Any], console: Console) -> dict[str, Any]:
    try:
        return ask_and_show("report", request, console)
    except (RuntimeError, ValueError) as error:  # a report without pictures is better than none
        return {"missing": " ".join(str(error).split())[:300]}


def _kept(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
