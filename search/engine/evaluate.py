"""What `qtarget evaluate` computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...evaluation.scoring.model import run
from ..study.config_file import load_evaluation
from .channel import Channel


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The score of `request["model"]` on the file `tasks`; items and result go to the folder `out` if it is given."""

    def on_block(done: int, total: int) -> None:
        channel.send("progress", phase="problems", done=done, total=total)

    tasks, out = Path(request["tasks"]), request["out"]
    place = Path(out) if out else None
    result = run(request["model"], load_evaluation(tasks), tasks.absolute().parent, place, on_block=on_block)
    return result.model_dump(mode="json")
