"""reasoning-gym items and answers, as a worker makes and scores them (extra `gym`): its scorers, made strict.

Some tasks iterate over sets of strings, so items are made in worker processes with a fixed hash seed, here and when an
answer is scored: the same seed gives the same problems on every run.

Its scorers pay partial credit, for the answer as a substring for instance, and compare some integers loosely; here only
full marks count, answers that are numbers or fixed strings are compared by `compare.py` instead, and the scorers that
accept wrong answers are tightened.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import Field

from ...spaces.settings import Settings
from ..facts import Fact, facts_of
from ..settings import Kind

CHUNK = 500
"""Items drawn from one seed."""

_BATCH_SECONDS = 0.5  # a worker answers with what it has made by then

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_ROUNDED = frozenset({"power_function"})  # asks for significant figures, which only its own scorer knows
_FIXED = frozenset({"game_of_life_halting"})  # its scorer accepts every answer: bool("False") is True
_EVERY_DIGIT = frozenset({"number_format"})  # the number is given; writing it is the task


class GymEntry(Settings):
    """Where one item comes from: enough to make it again, bit for bit."""

    task: str
    config: dict[str, Any]
    seed: int
    index: int


class GymItem(Settings):
    """One generated item."""

    question: str
    gold: str
    """Empty for tasks whose answers only the scorer can judge."""
    kind: Kind
    entry: GymEntry | None
    """Given when the task's own scorer judges."""
    exact: bool = False
    """Every digit counts, whatever the tolerance."""
    solution: str | None = None
    """Worked solution, for tasks that carry one."""
    facts: dict[str, Fact] = Field(default_factory=dict)
    """What the task's metadata say of it, e.g. how many terms a sum has."""


def make_items(task: str, config: dict[str, Any], seed: int, start: int) -> tuple[str, str]:
    """Items for `problems/gym_tasks.py`: ("correct", items as JSON), or ("wrong", the rule that was broken)."""
    if start == 0 and (rule := _broken_rule(task, config)):
        return "wrong", rule
    items: list[dict[str, Any]] = []
    ends = time.monotonic() + _BATCH_SECONDS
    while start + len(items) < CHUNK and (not items or time.monotonic() < ends):
        entry = GymEntry(task=task, config=config, seed=seed, index=start + len(items))
        items.append(_item(entry).model_dump())
    return "correct", json.dumps(items)


def score_entry(answer: str, gold: str, entry: dict[str, Any]) -> bool:
    """Whether the task's own scorer gives full marks. The item is generated again from `entry`.

    Raises RuntimeError when that gives another item than the one that was asked, and what the scorer raises when it
    cannot even score the gold.
    """
    source = GymEntry.model_validate(entry)
    dataset = _dataset(source)
    item = dataset[source.index]
    if _gold(item) != gold:
        raise RuntimeError(f"item {source.index} of {source.task} came out different: another reasoning-gym version?")
    stricter = _STRICTER.get(source.task)
    if not _is_plain(answer, gold) or (stricter is not None and not stricter(answer, item["metadata"])):
        return False
    try:
        return float(dataset.score_answer(answer, item)) >= 1.0
    except Exception:  # a scorer may choke on a malformed answer; that it can score at all is shown by the gold
        if not gold or dataset.score_answer(gold, item) < 1.0:
            raise
        return False


_CODE = re.compile(r"__|\b(?:import|lambda|eval|exec|open|getattr)\b")  # several scorers evaluate the answer
_HEDGE = re.compile(r"\b(?:or|either)\b", re.I)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


def _is_plain(answer: str, gold: str) -> bool:
    """No code, no hedge, and no words around an answer that has none."""
    if _CODE.search(answer) or (_HEDGE.search(answer) and not _HEDGE.search(gold)):
        return False
    return not gold or bool(_LETTER.search(gold)) or not _LETTER.search(answer)


def _item(entry: GymEntry) -> GymItem:
    dataset = _dataset(entry)
    item = dataset[entry.index]
    gold = _gold(item)
    kind, own = _kind(entry.task, gold, dataset)
    solution = item["metadata"].get("answer_cot")
    return GymItem(
        question=str(item["question"]),
        gold=gold,
        kind=kind,
        entry=entry if own else None,
        exact=entry.task in _EVERY_DIGIT,
        solution=None if solution is None else str(solution),
        facts=facts_of(item["metadata"], {"answer_cot"}),
    )


def _gold(item: dict[str, Any]) -> str:
    return "" if item["answer"] is None else str(item["answer"])


def _kind(task: str, gold: str, dataset: Any) -> tuple[Kind, bool]:
    """How answers are compared, and whether the task's own scorer does it."""
    from reasoning_gym.dataset import ProceduralDataset

    if _NUMBER.fullmatch(gold) and task not in _ROUNDED:
        return "numeric", False
    has_own_scorer = type(dataset).score_answer is not ProceduralDataset.score_answer
    return "exact", has_own_scorer and task not in _FIXED


@lru_cache(maxsize=32)
def _cached_dataset(task: str, config: tuple[tuple[str, Any], ...], seed: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=CHUNK, seed=seed, **dict(config))


def _dataset(entry: GymEntry) -> Any:
    return _cached_dataset(entry.task, tuple(sorted((k, _hashable(v)) for k, v in entry.config.items())), entry.seed)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _broken_rule(task: str, config: dict[str, Any]) -> str | None:
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        return f"`path` of a gym task must be a reasoning-gym task, but got {task!r}"
    taken = {"seed", "size"} & config.keys()
    if taken:
        return f"`config` must not set {', '.join(sorted(taken))}: seeds come from the study; remove it"
    try:
        _dataset(GymEntry(task=task, config=config, seed=0, index=0))
    except (TypeError, ValueError, AssertionError) as error:  # reasoning-gym checks its options by assertion
        return f"`config` of the gym task {task!r} is not valid: {error}"
    return None


def _puzzle24(answer: str, metadata: dict[str, Any]) -> bool:
    """The given numbers, each used once; its scorer accepts any four numbers and truncates the value."""
    from sympy import sympify

    used = sorted(map(int, re.findall(r"\d+", answer)))
    return (
        bool(re.fullmatch(r"[\d\s()+*/-]+", answer))
        and used == sorted(metadata["numbers"])
        and bool(sympify(answer) == 24)
    )


_STRICTER: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "puzzle24": _puzzle24,
    "sokoban": lambda answer, _: bool(re.fullmatch(r"[UDLR\s]+", answer)),
    "quantum_lock": lambda answer, _: bool(re.fullmatch(r"[A-Ca-c\s,>→-]+", answer)),
    "knights_knaves": lambda answer, _: bool(re.fullmatch(r"(?:\W*(?:\band\s+)?\w+ is an? \w+)+\W*", answer, re.I)),
}
