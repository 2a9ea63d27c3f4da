"""reasoning-gym tasks (extra `gym`): generated problems, and their own scorers made strict.

Its items of neighbouring seeds overlap (item i of seed s is item i - 1 of seed s + 1), so streams are seeded by hashed
names and repeated questions are dropped. Its scorers pay partial credit, for the answer as a substring for instance,
and compare some integers loosely; here only full marks count, answers that are numbers or fixed strings are compared
by `compare.py` instead, and the scorers that accept wrong answers are tightened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from ..spaces.errors import UserError
from ..spaces.identity import canonical_json, derive_seed
from ..spaces.settings import Settings
from .settings import Kind, TaskSettings

CHUNK = 500
"""Items drawn from one seed."""

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_ROUNDED = frozenset({"power_function"})  # asks for significant figures, which only its own scorer knows
_FIXED = frozenset({"game_of_life_halting"})  # its scorer accepts every answer: bool("False") is True


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
    solution: str | None
    """Worked solution, for tasks that carry one."""


def stream(task: TaskSettings, seed: int) -> Iterator[GymItem]:
    """Items without repeated questions, until a whole chunk brings nothing new."""
    _check(task)
    seen: set[str] = set()
    for chunk in range(2**31):
        before = len(seen)
        chunk_seed = derive_seed("gym", task.path, canonical_json(task.config), seed, chunk) % 2**32
        for index in range(CHUNK):
            item = _item(GymEntry(task=task.path, config=task.config, seed=chunk_seed, index=index))
            if item.question not in seen:
                seen.add(item.question)
                yield item
        if len(seen) == before:
            return


def score_entry(answer: str, entry: dict[str, Any]) -> bool:
    """Whether the task's own scorer gives full marks. Deterministic: the item is generated again from `entry`."""
    source = GymEntry.model_validate(entry)
    dataset = _dataset(source)
    item = dataset[source.index]
    stricter = _STRICTER.get(source.task)
    if stricter is not None and not stricter(answer, item["metadata"]):
        return False
    return float(dataset.score_answer(answer, item)) >= 1.0


def _item(entry: GymEntry) -> GymItem:
    dataset = _dataset(entry)
    item = dataset[entry.index]
    gold = "" if item["answer"] is None else str(item["answer"])
    kind, own = _kind(entry.task, gold, dataset)
    solution = item["metadata"].get("answer_cot")
    return GymItem(
        question=str(item["question"]),
        gold=gold,
        kind=kind,
        entry=entry if own else None,
        solution=None if solution is None else str(solution),
    )


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


def _check(task: TaskSettings) -> None:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UserError("`source: gym` needs reasoning-gym; install it with `pip install qtarget[gym]`") from None
    if task.path not in DATASETS:
        raise UserError(f"`path` of a gym task must be a reasoning-gym task, but got {task.path!r}", field="path")
    taken = {"seed", "size"} & task.config.keys()
    if taken:
        raise UserError(f"`config` must not set {', '.join(sorted(taken))}: seeds come from the study; remove it")
    try:
        _dataset(GymEntry(task=task.path, config=task.config, seed=0, index=0))
    except (TypeError, ValueError, AssertionError) as error:  # reasoning-gym checks its options by assertion
        raise UserError(f"`config` of the gym task {task.path!r} is not valid: {error}", field="config") from error


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
}
