"""The computing half of `qtarget cache build`: asks teacher and reference of a study once, and keeps their answers.

Started as `python -m qtarget.search.engine_cache STUDY.yaml`; reports progress and, last, the folders and their bias.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..trainers.data import load_demonstrations
from ..trainers.resident import ResidentModel
from .config import StudyConfig
from .config_file import load_study
from .engine import classify
from .engine_bias import cache_bias, study_caches
from .engine_channel import Channel, die_with_parent


def build(config: StudyConfig, channel: Channel) -> dict[str, Any]:
    """Build, continue or repair the caches of a study, role to folder; and what they lose."""
    base = config.base_folder
    resident = ResidentModel(config.model, base, precision=config.training.precision)
    data = load_demonstrations(config.data, resident.tokenizer, base)
    caches, roles = study_caches(config, data, resident.tokenizer)
    folders = {}
    for role, model in roles.items():

        def report(done: int, total: int, role: str = role) -> None:
            channel.send("progress", phase=f"{role} cache", done=done, total=total)

        found = caches.open_or_build(model, device=resident.device, on_progress=report)
        folders[role] = str(found.cache.folder)
    return {"folders": folders, "bias": cache_bias(config, resident, data)}


def main(path: Path) -> None:
    die_with_parent()
    channel = Channel()
    try:
        channel.send("built", **build(load_study(path), channel))
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
