"""The computing half of `qtarget cache build`: asks teacher and reference of a study once, and keeps their answers.

Started as `python -m qtarget.search.engine_cache STUDY.yaml`; reports progress and, last, the folders.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..trainers.cache_source import CachedModels
from ..trainers.data import load_demonstrations
from ..trainers.models import load_tokenizer
from ..trainers.settings import CacheSettings, ModelSettings
from .config import StudyConfig
from .config_file import load_study
from .engine import classify
from .engine_channel import Channel, die_with_parent


def build(config: StudyConfig, channel: Channel) -> dict[str, str]:
    """Build, continue or repair the caches of a study; role to folder."""
    base = config.base_folder
    tokenizer = load_tokenizer(config.model, base)
    data = load_demonstrations(config.data, tokenizer, base)
    caches = CachedModels(
        data,
        config.data,
        tokenizer,
        base,
        settings=config.cache or CacheSettings(),
        precision=config.training.precision,
    )
    roles: dict[str, ModelSettings | None] = {"reference": config.model, "teacher": config.teacher}
    folders = {}
    for role, model in roles.items():
        if model is not None and role in config.needs:

            def report(done: int, total: int, role: str = role) -> None:
                channel.send("progress", phase=f"{role} cache", done=done, total=total)

            folders[role] = str(caches.open_or_build(model, on_progress=report).cache.folder)
    return folders


def main(path: Path) -> None:
    die_with_parent()
    channel = Channel()
    try:
        channel.send("built", folders=build(load_study(path), channel))
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
