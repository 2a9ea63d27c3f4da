"""The computing half of `qtarget evaluate`.

Started as `python -m qtarget.search.engine_evaluate MODEL TASKS.yaml [OUT]`; reports progress and, last, the result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..evaluation.evaluate_model import run
from .config_file import load_evaluation
from .engine import classify
from .engine_channel import Channel, die_with_parent


def main(model: str, tasks: Path, out: Path | None) -> None:
    die_with_parent()
    channel = Channel()

    def on_block(done: int, total: int) -> None:
        channel.send("progress", phase="problems", done=done, total=total)

    try:
        settings = load_evaluation(tasks)
        result = run(model, settings, tasks.absolute().parent, out, on_block=on_block)
        channel.send("evaluated", result=result.model_dump(mode="json"))
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
