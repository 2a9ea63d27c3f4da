"""What somebody names on the command line, as the study file has to name it; and which of it is not there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...evaluation.survey.facts import HARNESS
from ...spaces.errors import UserError
from ...trainers.paths import DATA_SUFFIXES, lies_in

MODEL_SUFFIXES = (".gguf", ".safetensors")
SHOWN = 6


def seen_from(folder: Path, name: str) -> str:
    """A path that is there, seen from the study file's folder; anything else (hub ids, suites) as it is."""
    if name.startswith(HARNESS):
        return HARNESS + seen_from(folder, name.removeprefix(HARNESS))
    written = os.path.expanduser(name)
    if os.path.isabs(written) or not lies_in(Path.cwd(), written):
        return name
    return os.path.relpath(Path.cwd() / written, folder)


def require_there(name: str, option: str) -> None:
    """Raise UserError for what can only be local and is not here: what was looked for, what there is, what to pass."""
    suffixes = MODEL_SUFFIXES if option == "--model" else DATA_SUFFIXES
    local = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(suffixes)
    if not name.strip() or (local and not lies_in(Path.cwd(), name)):
        raise UserError(
            f"`{option}` must be {_WANTED[option]}, but there is nothing at {name or 'an empty name'}; "
            f"{_there_is(name, option)}",
            field=option.removeprefix("--"),
        )


def require_given(name: str | None, option: str) -> str:
    """`name`, or UserError where there is none: what to pass."""
    if name is None:
        raise UserError(
            f"`{option}` must be given where nobody can be asked: {_WANTED[option]}; {_there_is('', option)}",
            field=option.removeprefix("--"),
        )
    return name


def study_name(file: Path, model: str, data: str) -> str:
    """A study's name: that of its file, or of model and data where the file's says nothing."""
    stem = file.stem if file.stem != "study" else f"{Path(model).stem}-{Path(data).name.partition('.')[0]}"
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "study"


def _there_is(name: str, option: str) -> str:
    """What could have been meant: models or data files where `name` points at, or else here."""
    folder = (Path.cwd() / os.path.expanduser(name)).parent if name else Path.cwd()
    folder = folder if folder.is_dir() else Path.cwd()
    found = _candidates(folder, option)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"in {folder} there is {', '.join(found[:SHOWN])}{more}" if found else f"{folder} holds none"


def only_one(option: str) -> str:
    """The one model, or data file, of the working folder; nothing where there are several, or none."""
    found = _candidates(Path.cwd(), option)
    return found[0] if len(found) == 1 else ""


def _candidates(folder: Path, option: str) -> list[str]:
    """Models, or data files, in a folder."""
    if option != "--model":
        return [each.name for each in sorted(folder.iterdir()) if each.name.lower().endswith(DATA_SUFFIXES)]
    models = [each.parent.name for each in sorted(folder.glob("*/config.json"))]
    return [*models, *(each.name for each in sorted(folder.glob("*.gguf")))]


_WANTED = {
    "--model": "a folder with config.json, a GGUF file, or a hub id such as Qwen/Qwen2.5-0.5B",
    "--data": "a file of demonstrations (JSONL, JSON, CSV, TSV, Parquet), a pattern, a folder, or a hub id",
    "--teacher": "a folder with config.json, a GGUF file, or a hub id",
}
