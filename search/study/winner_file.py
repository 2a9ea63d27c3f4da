"""winner.yaml: everything a full training run needs, written by `qtarget export` and read by `qtarget train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ...evaluation.settings import EvaluationSettings
from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ...spaces.target import TargetSpec
from ...trainers.run_settings import RunSettings
from ...trainers.settings import CacheSettings, DataSettings, ModelSettings, TrainingSettings

FILE = "winner.yaml"


class WinnerFile(Settings):
    """A target with everything that trains it."""

    target: TargetSpec
    training: TrainingSettings
    run: RunSettings = RunSettings()
    model: ModelSettings
    teacher: ModelSettings | None = None
    cache: CacheSettings | None = None
    """Ask teacher and reference once and keep their answers; default: ask them live."""
    data: DataSettings
    evaluation: EvaluationSettings | None = None
    seed: int = 0
    """Decides data order, new adapters and sampling noise."""
    split_seed: int = 0
    """Seed of the study: which problems are for searching, and which for the report."""
    base: str = "."
    """Folder that relative paths start from, itself relative to this file's."""
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def base_folder(self) -> Path:
        return Path(self.base)


def load_winner(path: Path) -> WinnerFile:
    """The winner at `path`, a file or an export's folder; raises UserError that lists every fault of the file."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"the winner must be a YAML file, but there is none at {file}; write one with `qtarget export`")
    try:
        read = yaml.safe_load(file.read_text("utf-8"))
        found = WinnerFile.model_validate(read)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} must be YAML in UTF-8, but {' '.join(str(error).split())}; mend that place") from None
    except ValidationError as error:
        raise UserError(f"{file}: " + "\n".join(fault(each) for each in error.errors(include_url=False))) from None
    return found.model_copy(update={"base": str((file.absolute().parent / found.base).resolve())})


def fault(error: Any) -> str:
    """One of pydantic's faults for people: where, rule, value."""
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    return f"`{where}`: {error['msg'].removeprefix('Value error, ')} (got {str(error['input'])[:80]!r})"
