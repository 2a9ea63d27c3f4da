"""Tasks of lm-evaluation-harness (extra `lm-eval`): documents, prompts and stop strings as the library makes them.

They are made and judged by workers (`verification/harness.py`), where the library's own code runs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ..settings import TaskSettings
from ..verification.harness import HarnessItem, HarnessSource
from ..verification.pool import LOAD_LIMIT, shared_pool
from .splits import content_hash, training_hashes

FIELD = "evaluation.tasks"


def harness_items(task: TaskSettings, base: Path) -> tuple[HarnessItem, ...]:
    """Every document of the task or group, in the library's order.

    Raises UserError for an unknown task, one that cannot be loaded or scored item by item, and without the library.
    """
    return _made(source_of(task, base).model_dump_json())


def source_of(task: TaskSettings, base: Path) -> HarnessSource:
    """What a worker needs to load the task."""
    return HarnessSource(name=task.title, options=task.harness, base=str(base.resolve()))


def harness_entry(task: TaskSettings, base: Path, item: HarnessItem) -> dict[str, Any]:
    """What an item's judge needs to know, kept with the item."""
    return {"harness": {"source": source_of(task, base).model_dump(), "task": item.task, "doc": item.doc}}


def known_by(items: Sequence[HarnessItem]) -> list[frozenset[str]]:
    """Content hashes by which demonstrations may know each document: its question in any form, and its own fields.

    What several questions have in common (an instruction, a category) tells none of them.
    """
    found = [{*map(content_hash, item.fields), *training_hashes([item.question])} for item in items]
    owners: dict[str, set[str]] = defaultdict(set)
    for item, hashes in zip(items, found, strict=True):
        for each in hashes:
            owners[each].add(item.question)
    return [frozenset(each for each in hashes if len(owners[each]) == 1) for hashes in found]


def asked_as(item: HarnessItem, task: TaskSettings) -> str:
    """Identity of prompt, generation and metric: asked otherwise, it is another problem."""
    kept = item.model_dump(include={"contexts", "continuations", "until", "max_new_tokens", "temperature"})
    return content_id([kept, task.harness.metric, task.harness.filter])


@lru_cache(maxsize=4)  # the same task is drawn from several times: to be checked, searched with and confirmed
def _made(source: str) -> tuple[HarnessItem, ...]:
    verdict, detail = shared_pool().ask({"do": "make harness", "source": json.loads(source)}, LOAD_LIMIT)
    if verdict == "correct":
        return tuple(HarnessItem.model_validate(item) for item in json.loads(detail))
    if "No module named 'lm_eval'" in detail:
        raise UserError(
            "`source: lm_eval` needs lm-evaluation-harness; install it with `pip install 'qtarget[lm-eval]'`",
            field=FIELD,
        )
    if verdict == "wrong":
        raise UserError(detail, field=FIELD)
    raise RuntimeError(f"lm-evaluation-harness failed while it made the problems of a task ({source}): {detail}")
