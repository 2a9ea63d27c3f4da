"""What `qtarget evaluate` computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...evaluation.problems.load import load_problems
from ...evaluation.problems.splits import training_hashes
from ...evaluation.scoring.evaluate import Evaluation
from ...evaluation.scoring.model import run
from ...trainers.data.load import style_of
from ...trainers.data.style import Style
from ..study.config import StudyConfig
from ..study.config_file import load_evaluation, load_study, read_yaml
from ..study.resume import hold_against
from .channel import Channel
from .inputs import problems_fingerprint, training_prompts


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The score of `request["model"]` on the file `tasks`, or on the problems that the search of `study` has seen.

    Items and result go to the folder `out` if it is given.
    """

    def on_block(done: int, total: int) -> None:
        channel.send("progress", phase="problems", done=done, total=total)

    tasks, out = Path(request["tasks"]), request["out"]
    place = Path(out) if out else None
    if request["study"] is not None:
        result = as_searched(request, place, on_block)
    else:
        settings, base = load_evaluation(tasks)
        result = run(request["model"], settings, base, place, on_block=on_block, style=_style(tasks))
    return result.model_dump(mode="json")


def as_searched(request: Mapping[str, Any], out: Path | None, on_block: Callable[[int, int], None]) -> Evaluation:
    """The score on a study's own search problems. Raises UserError when they are others by now."""
    config = StudyConfig.model_validate(request["study"])
    base, seed = config.base_folder, config.search.seed
    seen = training_hashes(training_prompts(config.data, base))
    style = style_of(config.data, base, day=config.date)
    found = {"evaluation": problems_fingerprint(load_problems(config.evaluation, base, seed, seen, style))}
    hold_against(request["fingerprints"], found, config.study, "an evaluation")
    settings = config.evaluation
    return run(request["model"], settings, base, out, seed=seed, exclude=seen, on_block=on_block, style=style)


def _style(tasks: Path) -> Style | None:
    """How the demonstrations of a study's file ask; None where the file has tasks alone."""
    read = read_yaml(tasks.absolute())
    if not {"study", "data"} <= read.keys() or "matrix" in read:
        return None
    config = load_study(tasks)
    return style_of(config.data, config.base_folder, day=config.date)
