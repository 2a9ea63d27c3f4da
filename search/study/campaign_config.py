"""A campaign as one YAML file: a study file with `matrix`, expanded to a study for each pair.

    study: small                       # its studies: small.smollm.gsm, small.smollm.sums, ... in runs/<name>
    matrix:
      models:                          # an axis: any name, any number of axes
        smollm: {model: {path: HuggingFaceTB/SmolLM2-135M-Instruct}}
        qwen: {model: {path: Qwen/Qwen3-0.6B-Base}, teacher: {path: Qwen/Qwen3-1.7B}}
      data:
        gsm: {data: {path: gsm/train.jsonl}, evaluation: {tasks: [{path: gsm/problems.jsonl}]}}
        sums: {data: {path: sums/train.jsonl}, evaluation: {tasks: [{path: sums/problems.jsonl}]}}
    budget: {trials: 120}              # over all studies; also `hours`, and `slice`
    training: {...}                    # whatever else a study file holds is common to all pairs

An entry of an axis holds keys of a study file; it is laid over the common part, mapping by mapping.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ...spaces.errors import UserError
from ...spaces.settings import Settings
from .config import StudyConfig
from .config_file import parse_study, placed, read_folder, read_yaml
from .faults import refusal

Entry = dict[str, Any]


class CampaignBudget(Settings):
    """What all studies of a campaign may use together, in equal shares."""

    trials: Annotated[int, Field(ge=1)] | None = None
    """Slots over all studies. Default: each study has its own `search.trials`."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Engine hours over all studies."""
    slice: Annotated[int, Field(ge=1)] = 5
    """Trials that a study is ahead of another at most: each runs so many, then the next one has its turn."""


class _Matrix(Settings):
    """The two keys that make a study file a campaign."""

    matrix: Annotated[dict[str, Annotated[dict[str, Entry], Field(min_length=1)]], Field(min_length=1)]
    budget: CampaignBudget = CampaignBudget()


@dataclass(frozen=True)
class Campaign:
    """Several studies that share a budget. It has no state of its own: that is the studies'."""

    name: str
    studies: tuple[StudyConfig, ...]
    budget: CampaignBudget


def is_campaign(path: Path) -> bool:
    """Whether the file at `path` is a study file with `matrix`."""
    return path.is_file() and "matrix" in read_yaml(path)


def is_single(paths: Sequence[Path]) -> bool:
    """Whether `paths` name one study, and no campaign."""
    return len(paths) == 1 and not is_campaign(paths[0])


def shares(campaign: Campaign, trials: int | None = None) -> dict[str, int]:
    """Slots of each study: all of its queue, or an equal part of `trials`, the first ones more.

    Raises UserError when there are fewer trials than studies.
    """
    if trials is None:
        return {config.study: config.search.slots for config in campaign.studies}
    parts = _parts(trials, len(campaign.studies))
    return {config.study: part for config, part in zip(campaign.studies, parts, strict=True)}


def _parts(trials: int, count: int) -> list[int]:
    if trials < count:
        raise UserError(f"`budget.trials` must be at least one a study, but got {trials} for {count} studies; raise it")
    return [trials // count + (index < trials % count) for index in range(count)]


def load_campaign(paths: Sequence[Path]) -> Campaign:
    """One campaign file, or the studies of several files and folders (a file may be a campaign's itself).

    Raises UserError with the path in the file for every fault, and for two studies of one name or folder.
    """
    found = [_read(path) for path in paths]
    if len(found) == 1:
        campaign = found[0]
    else:
        studies = tuple(study for each in found for study in each.studies)
        campaign = Campaign(" + ".join(each.name for each in found), studies, CampaignBudget())
    refuse_twice("study", (study.study for study in campaign.studies))
    refuse_twice("folder", (str(study.study_folder) for study in campaign.studies))
    return campaign


def _read(path: Path) -> Campaign:
    if path.is_dir():
        study = read_folder(path)
        return Campaign(study.study, (study,), CampaignBudget())
    read = placed(read_yaml(path.absolute()), path.absolute())
    if "matrix" not in read:
        study = parse_study(read, source=str(path))
        return Campaign(study.study, (study,), CampaignBudget())
    own = {name: read.pop(name) for name in ("matrix", "budget") if name in read}
    try:
        settings = _Matrix.model_validate(own)
    except ValidationError as error:
        raise refusal(error, str(path), own, _Matrix) from None
    name = str(read.get("study", path.stem))
    pairs = itertools.product(*([(axis, *entry) for entry in names.items()] for axis, names in settings.matrix.items()))
    studies = tuple(_study(name, read, pair, path) for pair in pairs)
    if (total := settings.budget.trials) is not None:
        parts = _parts(total, len(studies))
        studies = tuple(study.of_length(part) for study, part in zip(studies, parts, strict=True))
    return Campaign(name, studies, settings.budget)


def _study(name: str, common: Mapping[str, Any], pair: Sequence[tuple[str, str, Entry]], path: Path) -> StudyConfig:
    """The study of one pair: the common part, with each entry (axis, name, keys) laid over it."""
    for axis, title, entry in pair:
        _refuse_reserved(entry, f"matrix.{axis}.{title}", path)
    merged = reduce(_over, (entry for *_, entry in pair), dict(common))
    merged["study"] = ".".join([name, *(title for _, title, _ in pair)])
    try:
        return parse_study(merged, source=f"{path}, study {merged['study']}")
    except UserError as error:
        places = [f"matrix.{axis}.{title}" for axis, title, entry in reversed(pair) if _names(entry, error.field)]
        if not places:
            raise
        raise UserError(f"in `{places[0]}`: {error}", field=f"{places[0]}.{error.field}") from None


def _refuse_reserved(entry: Mapping[str, Any], place: str, path: Path) -> None:
    taken = sorted({"study", "matrix", "budget", "base", "folder"} & set(entry))
    if taken:
        raise UserError(
            f"{path}: `{place}` must hold keys that differ between pairs, but got {', '.join(taken)}; "
            "give it once at the top of the file, or leave it out",
            field=f"{place}.{taken[0]}",
        )


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings are merged, anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = _over(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _names(entry: Any, field: str | None) -> bool:
    """Whether a matrix entry holds the top of a dotted path."""
    return field is not None and field.split(".")[0].split("[")[0] in entry


def refuse_twice(what: str, names: Iterable[str]) -> None:
    """Raise UserError when two of `names` are the same."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"studies of a campaign must have a {what} each, but {name!r} comes twice; rename one")
        seen.add(name)
