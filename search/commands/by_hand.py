"""`qtarget add` and `qtarget rerun`: own designs, and failed trials once more, put into the queue of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ...spaces import presets
from ...spaces.errors import UserError
from ..loop.by_hand import Design, add, read_design, rerun
from ..study.config_file import find_study, read_yaml


def add_design(
    study: Path, design: str, console: Console, *, knobs: Sequence[str] = (), training: Sequence[str] = ()
) -> dict[str, Any]:
    """Put a design into the queue of a study, running or not; what was put there.

    `design`: a preset's name, a YAML or JSON file (an export's winner.yaml, too), or such a text in braces. `knobs` of
    a preset and `training` settings are NAME=VALUE. Raises UserError for a design that cannot be run there.
    """
    config = find_study(study)
    given = _read(design)
    options = {"knobs": _pairs(knobs, "--knob"), "training": _pairs(training, "--training")}
    changes = {name: {**getattr(given, name), **found} for name, found in options.items()}
    added = add(config, read_design({**given.model_dump(exclude_none=True), **changes}, "DESIGN"))
    where = "in the searched space: the sampler learns from it" if added.inside else "outside the searched space"
    console.print(f"Trial {added.number}: {added.title} ({where}).", markup=False, soft_wrap=True)
    console.print(f"A running study takes it next; else: qtarget run {study}", markup=False, soft_wrap=True)
    return {"study": config.study, "number": added.number, "title": added.title, "inside": added.inside}


def rerun_trials(study: Path, numbers: Sequence[int], console: Console) -> dict[str, Any]:
    """Put failed trials of a study back into its queue; which, and as which trials. Raises UserError as `rerun`."""
    config = find_study(study)
    new = rerun(config, numbers)
    for before, now in new.items():
        console.print(f"Trial {before} runs again as trial {now}, in its place.")
    if new:
        console.print(f"A running study takes them next; else: qtarget run {study}", markup=False, soft_wrap=True)
    else:
        console.print("No trial has failed: there is nothing to run again.")
    return {"study": config.study, "again": {str(before): now for before, now in new.items()}}


def _read(design: str) -> Design:
    if design in presets.names():
        return Design(preset=design)
    if design.lstrip().startswith("{"):
        return read_design(_mapping(design), "DESIGN")
    if not Path(design).is_file():
        raise UserError(
            f"DESIGN must be a published objective, a file, or a mapping in braces, but got {design!r}; "
            f"known objectives are {', '.join(presets.names())}"
        )
    return read_design(read_yaml(Path(design)), design)


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"DESIGN must be YAML or JSON, but {' '.join(str(error).split())}; mend that place") from None
    return dict(read)


def _pairs(given: Sequence[str], option: str) -> dict[str, Any]:
    """NAME=VALUE as a mapping, values as YAML reads them."""
    found: dict[str, Any] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name or not value:
            raise UserError(f"`{option}` must be NAME=VALUE, but got {each!r}")
        found[name] = yaml.safe_load(value)
    return found
