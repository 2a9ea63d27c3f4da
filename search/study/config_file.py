"""Reading a study's YAML: plain data, keys once, and each fault with its path in the file."""

from __future__ import annotations

import datetime
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ...evaluation.settings import EvaluationSettings
from ...spaces.errors import UserError
from ...trainers.paths import expanded
from .config import StudyConfig
from .faults import refusal
from .files import read_json
from .folder_file import FOLDER_FILE as FOLDER_FILE
from .folder_file import read_folder as read_folder
from .folder_file import write_folder as write_folder

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
"""Where MLflow's own tools look for the store; the default of `tracking.uri`."""


def load_study(path: str | Path) -> StudyConfig:
    """The study described by the YAML file at `path`.

    Raises UserError that lists every fault of the file: dotted path, rule, value, remedy.
    """
    file = Path(path).absolute()
    read = placed(read_yaml(file), file)
    if "matrix" in read:
        raise UserError(
            f"{path} must describe one study, but it is a campaign of several (`matrix`); name the folder of one of "
            f"its studies, runs/<study>: `qtarget status {path}` lists them",
            field="matrix",
        )
    return with_kept_date(parse_study(read, source=str(path)))


def with_kept_date(config: StudyConfig) -> StudyConfig:
    """The configuration with the day of the study's folder, where that was run before and the file names none."""
    if config.date is not None:
        return config
    try:
        kept = (read_json(config.study_folder / FOLDER_FILE) or {}).get("date")
        return config if kept is None else config.model_copy(update={"date": datetime.date.fromisoformat(kept)})
    except (OSError, ValueError, TypeError):  # a folder that cannot be read is the business of who opens it
        return config


def find_study(path: Path) -> StudyConfig:
    """The study of a YAML file, or of a study's folder, wherever that lies now."""
    return read_folder(path) if path.is_dir() else load_study(path)


def placed(read: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A file's data with the folder that its relative paths start from, and with this host's store for tracking."""
    base, tracking = read.get("base", "."), read.get("tracking")
    if isinstance(base, str):
        base = str((file.parent / expanded(base, "base")).resolve())
    found = {**read, "base": base}
    default = os.environ.get(TRACKING_VARIABLE)
    if default and (tracking is None or (isinstance(tracking, Mapping) and tracking.get("uri") is None)):
        found["tracking"] = {**(tracking or {}), "uri": default}
    return found


def load_evaluation(path: Path) -> tuple[EvaluationSettings, Path]:
    """The `evaluation` section of a YAML file, which may be a study's or a winner's, and where its paths start.

    Raises UserError like `load_study`.
    """
    whole = read_yaml(path.absolute())
    read, base = whole.get("evaluation"), Path(str(placed(whole, path.absolute())["base"]))
    try:
        return EvaluationSettings.model_validate(read), base
    except ValidationError as error:
        raise refusal(error, str(path), read, StudyConfig, within=("evaluation",)) from None


def parse_study(read: Mapping[str, Any], source: str = "the study") -> StudyConfig:
    """The study described by plain data; raises UserError like `load_study`."""
    try:
        return StudyConfig.model_validate(read)
    except ValidationError as error:
        raise refusal(error, source, read, StudyConfig) from None


class _OneOfEach(yaml.SafeLoader):
    """YAML whose keys are names, none given twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, _braces(key), key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key.value}` is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _braces(key: yaml.Node) -> str:
    """What is wrong with a key that is a mapping or a list itself, as in `path: {{ X }}`."""
    if not isinstance(key, yaml.MappingNode):
        return "a key is a list; keys must be names"
    names = [each.value for each, _ in key.value if isinstance(each, yaml.ScalarNode)]
    name = names[0] if names else "..."
    return f"`{{{{ {name} }}}}` without quotes is no text; quote it, or fill the template in before: '{{{{ {name} }}}}'"


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, each key once; raises UserError for anything else."""
    if not file.is_file():
        raise UserError(f"the study must be a YAML file, but there is none at {file}; check the path")
    try:
        # a subclass of SafeLoader: builds plain data only
        read = yaml.load(file.read_text("utf-8"), Loader=_OneOfEach)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file.name} must be YAML in UTF-8, but {_one_line(error)}; mend that place") from None
    if not isinstance(read, dict):
        raise UserError(
            f"{file.name} must hold `study`, `model`, `data` and `evaluation`, but got {type(read).__name__} "
            f"{str(read)[:60]!r}; "
            "see studies/ for an example"
        )
    return read


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
