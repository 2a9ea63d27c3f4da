"""The configuration that a study's folder keeps: written by whoever runs it, read by its engines and by every verb.

A folder knows itself by where it is, not by what was written into it: copied, moved or mounted elsewhere, it is the
study that lies there. What is different on one host of several, paths and the storage's address, has a file of its own,
so that no host takes another one's away.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...spaces.errors import UserError
from ...trainers.paths import lies_in
from .config import StudyConfig
from .faults import refusal
from .files import read_json, write_json
from .secrets import shown

FOLDER_FILE = "study.json"
"""The configuration that a study's folder was last run with."""


def write_folder(config: StudyConfig) -> None:
    """Keep the configuration in the study's folder: readable as other files are, unless it holds a password."""
    config.study_folder.mkdir(parents=True, exist_ok=True)
    _host_file(config.study_folder).unlink(missing_ok=True)
    _write(config.study_folder / FOLDER_FILE, config.model_dump(mode="json"))


def write_host(config: StudyConfig) -> None:
    """Keep what is different here from what the folder says, for this host alone."""
    known, own = read_folder(config.study_folder), {}
    if known.base_folder.resolve() != config.base_folder.resolve():
        own["base"] = config.base
    if known.storage != config.storage and not str(config.storage).startswith("sqlite:"):
        own["storage"] = config.storage  # a file is found by where the folder is
    if own:
        _write(_host_file(config.study_folder), own)


def _write(file: Path, data: Mapping[str, Any]) -> None:
    """For its owner alone where an address in it has a password; else for whoever may look at the study."""
    secret = any(shown(address) != address for address in _texts(data))
    write_json(file, data, mode=0o600 if secret else 0o644)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def read_folder(folder: Path) -> StudyConfig:
    """The configuration that a study's folder was last run with, its paths as they are where the folder lies now.

    Raises UserError when there is none, or it cannot be read.
    """
    place, file = folder.absolute(), folder / FOLDER_FILE
    if not file.is_file():
        raise UserError(
            f"a study's folder must hold {FOLDER_FILE}, but {folder} does not; check the path, or run the study"
        )
    try:
        read = read_json(file) or {}
        config, own = StudyConfig.model_validate(read), read_json(_host_file(place)) or {}
    except ValidationError as error:
        raise refusal(error, str(file), read, StudyConfig) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{file} must be readable, but {' '.join(str(error).split())}; restore it") from None
    return relocated(config, place).model_copy(update=own)


def written_folder(folder: Path) -> Path | None:
    """Where a study's folder lay when it was run last, as it says; None when it does not say."""
    try:
        read = read_json(folder / FOLDER_FILE)
        return None if read is None else _written(StudyConfig.model_validate(read))
    except (ValueError, OSError):
        return None


def relocated(config: StudyConfig, place: Path) -> StudyConfig:
    """A configuration whose folder lies at `place` now, its other paths moved along where they lay beside it."""
    before = _written(config)
    if before is not None and before.resolve() == place.resolve():
        return config
    base = next(_bases(config, before, place))
    moves = [(config.base_folder, base)] if before is None else [(before, place), (config.base_folder, base)]
    tracking = config.tracking.model_copy(update={"uri": _carried(config.tracking.uri, moves)})
    changes = {"folder": named(place, base), "base": str(base), "storage": _carried(config.storage, moves)}
    return config.model_copy(update={**changes, "tracking": tracking})


def named(place: Path, base: Path) -> str:
    """What `folder` calls a place: relative to `base` where it lies in it, so that both are found on another mount."""
    return str(place.relative_to(base)) if place.is_relative_to(base) else str(place)


def _written(config: StudyConfig) -> Path | None:
    """The folder that a configuration names; None where this host lacks a variable of it."""
    try:
        return config.study_folder
    except UserError:
        return None


def _bases(config: StudyConfig, before: Path | None, place: Path) -> Iterator[Path]:
    """Where relative paths may start from, the likeliest first: where the study's inputs lie."""
    base = config.base_folder
    found = [base]
    if before is not None and before.is_relative_to(base):
        inside = before.relative_to(base).parts
        if place.parts[-len(inside) :] == inside:
            found.insert(0, place.parents[len(inside) - 1])
    yield from (each for each in found if _has_inputs(config, each))
    yield from found


def _has_inputs(config: StudyConfig, base: Path) -> bool:
    """Whether anything that the study reads by a relative path lies there."""
    tasks = [path for task in config.evaluation.tasks if task.source == "file" for path in task.paths]
    return any(lies_in(base, path) for path in (*config.data.paths, config.model.path, *tasks))


def _carried(address: str | None, moves: list[tuple[Path, Path]]) -> str | None:
    """The address of a store whose SQLite file lay in a folder that has moved, as it is now."""
    prefix = "sqlite:////"
    if address is None or not address.startswith(prefix):
        return address
    file = Path("/" + address.removeprefix(prefix))
    for before, now in moves:
        if file.is_relative_to(before) and (moved := now / file.relative_to(before)).exists():
            return f"sqlite:///{moved}"
    return address


def _host_file(folder: Path) -> Path:
    name = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return folder / f"study.{name}.json"
