"""Reading a study's YAML: each fault with its path in the file, the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import types
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ...evaluation.settings import EvaluationSettings
from ...spaces.errors import UserError
from .config import StudyConfig
from .files import write_json
from .redaction import redact

FOLDER_FILE = "study.json"
"""The configuration that a study's folder was last run with: what its engines read."""


def load_study(path: str | Path) -> StudyConfig:
    """The study described by the YAML file at `path`.

    Raises UserError that lists every fault of the file: dotted path, rule, value, remedy.
    """
    file = Path(path).absolute()
    read = with_base(read_yaml(file), file)
    if "matrix" in read:
        raise UserError(
            f"{path} must describe one study, but it is a campaign of several (`matrix`); name the folder of one of "
            f"its studies, runs/<study>: `qtarget status {path}` lists them",
            field="matrix",
        )
    return parse_study(read, source=str(path))


def find_study(path: Path) -> StudyConfig:
    """The study of a YAML file, or of a study's folder."""
    return read_folder(path) if path.is_dir() else load_study(path)


def with_base(read: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A file's data with the folder that its relative paths start from."""
    base = read.get("base", ".")
    return {**read, "base": str((file.parent / base).resolve()) if isinstance(base, str) else base}


def load_evaluation(path: Path) -> EvaluationSettings:
    """The `evaluation` section of a YAML file, which may be a study's. Raises UserError like `load_study`."""
    read = read_yaml(path.absolute())
    try:
        return EvaluationSettings.model_validate(read.get("evaluation"))
    except ValidationError as error:
        raise refusal(error, str(path), within=("evaluation",)) from None


def parse_study(read: Mapping[str, Any], source: str = "the study") -> StudyConfig:
    """The study described by plain data; raises UserError like `load_study`."""
    try:
        return StudyConfig.model_validate(read)
    except ValidationError as error:
        raise refusal(error, source) from None


def refusal(
    error: ValidationError, source: str, within: tuple[str, ...] = (), root: type[BaseModel] = StudyConfig
) -> UserError:
    """Every fault of a file that `root` describes, its path starting at `within`."""
    found = ({**each, "loc": (*within, *each["loc"])} for each in error.errors(include_url=False))
    faults = list(dict.fromkeys(_fault(each, root) for each in found))
    return UserError(redact(f"{source}: " + "\n".join(fault.line for fault in faults)), field=faults[0].field)


def write_folder(config: StudyConfig) -> None:
    """Keep the configuration in the study's folder, for its owner only: the storage's URL may hold a password."""
    path = config.study_folder / FOLDER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, config.model_dump(mode="json"), mode=0o600)


def read_folder(folder: Path) -> StudyConfig:
    """The configuration that a study's folder was last run with; raises UserError when there is none."""
    path = folder / FOLDER_FILE
    if not path.is_file():
        raise UserError(
            f"a study's folder must hold {FOLDER_FILE}, but {folder} does not; check the path, or run the study"
        )
    return StudyConfig.model_validate_json(path.read_bytes())


class _OneOfEach(yaml.SafeLoader):
    """YAML whose keys may not be given twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key.value}` is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


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


def dotted(location: Sequence[int | str], root: type[BaseModel] = StudyConfig) -> str:
    """`("evaluation", "tasks", 0, "kind")` as `evaluation.tasks[0].kind`; tags of union members are left out."""
    path = ""
    models = [root]
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (narrowed := [model for model in models if _tag(model, part)]):
            path += f".{part}" if path else part
            models = _below(models, part)
        else:
            models = narrowed
    return path


@dataclass(frozen=True)
class Fault:
    """One broken rule."""

    field: str
    line: str


def _fault(error: Mapping[str, Any], root: type[BaseModel]) -> Fault:
    location: tuple[int | str, ...] = error["loc"]
    own = error.get("ctx", {}).get("error")
    if isinstance(own, UserError) and own.field is not None:
        return Fault(own.field, str(own))
    if error["type"] == "extra_forbidden":
        return _unknown_key(location, root)
    field = dotted(location, root)
    if error["type"] == "missing":
        return Fault(field, f"`{field}` must be given; add it")
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if error["type"] == "value_error":  # our own messages carry rule, value and remedy
        return Fault(field, f"`{field}`: {rule}")
    return Fault(field, f"`{field}` {_must(rule)}, but got {_shown(error['input'])}; mend it")


def _must(rule: str) -> str:
    return rule.replace("should", "must", 1) if rule.startswith("should") else f"must be valid ({rule})"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _unknown_key(location: Sequence[int | str], root: type[BaseModel]) -> Fault:
    *parents, leaf = location
    known = sorted({name for model in _models_at(parents, root) for name in model.model_fields})
    near = difflib.get_close_matches(str(leaf), known, n=1)
    remedy = f"did you mean `{near[0]}`? " if near else ""
    where = dotted(parents, root)
    field = f"{where}.{leaf}" if where else str(leaf)
    return Fault(field, f"`{field}` must be a known key, but is not; {remedy}known here: {', '.join(known)}")


def _models_at(location: Sequence[int | str], root: type[BaseModel]) -> list[type[BaseModel]]:
    models = [root]
    for part in location:
        if isinstance(part, str):
            models = [model for model in models if _tag(model, part)] or _below(models, part)
    return models


def _below(models: list[type[BaseModel]], key: str) -> list[type[BaseModel]]:
    return [
        below for model in models if key in model.model_fields for below in _inside(model.model_fields[key].annotation)
    ]


def _inside(annotation: Any) -> list[type[BaseModel]]:
    """Settings models named anywhere in a type: unions, tuples, optionals."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [model for each in get_args(annotation) for model in _inside(each)]
    return []


def _tag(model: type[BaseModel], part: str) -> bool:
    """Whether pydantic names `part` to say which member of a union it means."""
    kind = model.model_fields.get("kind")
    return part == model.__name__ or (kind is not None and kind.default == part)


def locate(path: Path) -> StudyConfig:
    """The study of a YAML file, or of a study's folder wherever it was copied to. Raises UserError."""
    return moved(read_folder(path), path.absolute()) if path.is_dir() else load_study(path)


def moved(config: StudyConfig, folder: Path) -> StudyConfig:
    inside = Path(config.folder or f"runs/{config.study}")
    parts = len(inside.parts)
    known = not inside.is_absolute() and folder.parts[-parts:] == inside.parts
    base = str(folder.parents[parts - 1]) if known else config.base
    return config.model_copy(update={"folder": str(folder), "base": base})
