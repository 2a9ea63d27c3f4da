"""What `qtarget evaluate` computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...evaluation.scoring.model import run
from ...trainers.data.load import style_of
from ...trainers.data.style import Style
from ..study.config_file import load_evaluation, load_study, read_yaml
from .channel import Channel


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The score of `request["model"]` on the file `tasks`; items and result go to the folder `out` if it is given."""

    def on_block(done: int, total: int) -> None:
        channel.send("progress", phase="problems", done=done, total=total)

    tasks, out = Path(request["tasks"]), request["out"]
    place = Path(out) if out else None
    settings, base = load_evaluation(tasks), tasks.absolute().parent
    result = run(request["model"], settings, base, place, on_block=on_block, style=_style(tasks))
    return result.model_dump(mode="json")


def _style(tasks: Path) -> Style | None:
    """How the demonstrations of a study's file ask; None where the file has tasks alone."""
    read = read_yaml(tasks.absolute())
    if not {"study", "data"} <= read.keys() or "matrix" in read:
        return None
    config = load_study(tasks)
    return style_of(config.data, config.base_folder, day=config.date)
