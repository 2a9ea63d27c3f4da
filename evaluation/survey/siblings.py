"""Models that could teach a model: larger ones with the same vocabulary, in the folder beside it or the hub's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CacheNotFound, scan_cache_dir

from ...spaces.errors import UserError
from ...trainers.models.load import check_vocabulary, load_tokenizer
from ...trainers.models.size import size_of
from ...trainers.paths import lies_in
from ...trainers.settings import ModelSettings
from .facts import SiblingFacts

MOST = 12
"""Candidates that are looked at."""


def teacher_facts(model: ModelSettings, path: str, base: Path) -> SiblingFacts:
    """A teacher that somebody names. Raises UserError where it is no model, or has another vocabulary."""
    teacher = ModelSettings(path=path)
    size = size_of(teacher, base, field="teacher")
    check_vocabulary(load_tokenizer(model, base), load_tokenizer(teacher, base, field="teacher"))
    return SiblingFacts(path=path, parameters=size.parameters)


def siblings_of(model: ModelSettings, parameters: int, base: Path) -> tuple[SiblingFacts, ...]:
    """Larger models with the vocabulary of `model`, largest first; what cannot be read is passed over."""
    found = []
    for path in list(_beside(model.path, base))[:MOST]:
        try:
            sibling = teacher_facts(model, path, base)
        except UserError:
            continue
        if sibling.parameters > parameters:
            found.append(sibling)
    return tuple(sorted(found, key=lambda each: -each.parameters))


def _beside(path: str, base: Path) -> Iterator[str]:
    """Folders with a model beside a local one; of one from the hub, those of the same owner that are here already."""
    if lies_in(base, path):
        own = (base / Path(path).expanduser()).resolve()
        folders = sorted(each.parent for each in own.parent.glob("*/config.json"))
        yield from (str(Path(path).parent / each.name) for each in folders if each != own)
        return
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    owner = path.partition("/")[0]
    names = sorted(each.repo_id for each in repositories if each.repo_type == "model")
    yield from (name for name in names if name != path and name.partition("/")[0] == owner)
