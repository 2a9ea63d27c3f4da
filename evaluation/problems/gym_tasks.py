"""reasoning-gym tasks (extra `gym`): streams of generated problems that do not repeat.

Its items of neighbouring seeds overlap (item i of seed s is item i - 1 of seed s + 1), so streams are seeded by hashed
names and repeated questions are dropped. The items themselves are made by workers (`verification/gym.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ...spaces.errors import UserError
from ...spaces.identity import canonical_json, derive_seed
from ..settings import TaskSettings
from ..verification.gym import CHUNK, GymItem
from ..verification.pool import shared_pool

_MAKE_LIMIT = 600.0  # seconds; far more than the slowest item takes


def stream(task: TaskSettings, seed: int) -> Iterator[GymItem]:
    """Items without repeated questions, until a whole chunk brings nothing new.

    Raises UserError for an unknown task or invalid options, and when reasoning-gym is not installed.
    """
    seen: set[str] = set()
    for chunk in range(2**31):
        before = len(seen)
        start = 0
        while start < CHUNK:
            made = _made(task, chunk, seed, start)
            start += len(made)
            for item in made:
                if item.question not in seen:
                    seen.add(item.question)
                    yield item
        if len(seen) == before:
            return


def _made(task: TaskSettings, chunk: int, seed: int, start: int) -> list[GymItem]:
    """Some items of one chunk, made in a worker process."""
    job = {
        "do": "make",
        "module": "reasoning_gym",
        "task": task.title,
        "config": task.config,
        "seed": derive_seed("gym", task.title, canonical_json(task.config), seed, chunk) % 2**32,
        "start": start,
    }
    verdict, detail = shared_pool().ask(job, _MAKE_LIMIT)
    if verdict == "correct":
        return [GymItem.model_validate(item) for item in json.loads(detail)]
    if "No module named 'reasoning_gym'" in detail:
        raise UserError("`source: gym` needs reasoning-gym; install it with `pip install qtarget[gym]`", field="source")
    if verdict == "wrong":
        raise UserError(detail, field="path")
    raise RuntimeError(f"reasoning-gym failed while it made items of {task.title} (config {task.config}): {detail}")
