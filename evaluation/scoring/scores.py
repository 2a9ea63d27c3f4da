"""The outcome of an evaluation: score, error, verdicts and tokens, over all problems and by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...spaces.settings import Settings
from ..statistics.stats import pass_at_k, standard_error
from ..verification.verdict import Verdict
from .items import Item


class TaskScore(Settings):
    """The outcome on one of several tasks."""

    score: float
    standard_error: float | None
    """Clustered by problem; None for a single one."""
    pass_at_k: float
    """Chance that one of the k completions is right, averaged over problems."""
    num_problems: int


class Evaluation(Settings):
    """The outcome on a prefix of the problems: all of them, unless a callback stopped it."""

    score: float
    """Average@k: mean over problems of the share of correct completions, in [0, 1]."""
    standard_error: float
    """Of `score`, clustered by problem."""
    num_problems: int
    samples: int
    """k: completions per problem."""
    verdicts: dict[str, int]
    """Completions per verdict; every verdict is named."""
    cut: int
    """Completions that reached `max_new_tokens`, whatever their verdict."""
    tokens: int
    """Generated tokens."""
    seconds: float
    """Wall time of this call; a resumed one does not know of the calls before."""
    item_scores: tuple[float, ...]
    """(problems,) share of correct completions, in problem order: what paired comparisons use."""
    problem_ids: tuple[str, ...]
    stopped: bool = False
    """Whether a callback ended it before the last problem."""
    tasks: dict[str, TaskScore] = Field(default={})
    """By task."""
    first_error: str | None = None
    """Why the first completion with the verdict `error` has it."""


def summarise(items: Sequence[Item], samples: int, *, stopped: bool = False, seconds: float = 0.0) -> Evaluation:
    """The evaluation that `items` amount to, given in problem order with `samples` of each problem in a row."""
    scores = np.array(item_scores(items, samples))
    verdicts = Counter(item.verdict for item in items)
    return Evaluation(
        score=float(scores.mean()),
        standard_error=float(scores.std(ddof=1) / np.sqrt(len(scores))),
        num_problems=len(scores),
        samples=samples,
        verdicts={verdict.value: verdicts[verdict] for verdict in Verdict},
        cut=sum(item.finish == "length" for item in items),
        tokens=sum(item.tokens for item in items),
        seconds=seconds,
        item_scores=tuple(scores.tolist()),
        problem_ids=tuple(item.problem for item in items[::samples]),
        stopped=stopped,
        tasks=_by_task(items, samples),
        first_error=next((item.detail for item in items if item.verdict is Verdict.ERROR), None),
    )


def item_scores(items: Sequence[Item], samples: int) -> tuple[float, ...]:
    """(problems,) the share of correct completions of each problem."""
    return tuple(_correct(items, samples).mean(axis=1).tolist())


def _correct(items: Sequence[Item], samples: int) -> NDArray[np.float64]:
    """(problems, samples) of 0 and 1."""
    return np.array([item.verdict is Verdict.CORRECT for item in items], dtype=float).reshape(-1, samples)


def _by_task(items: Sequence[Item], samples: int) -> dict[str, TaskScore]:
    """Every task among the items, in the order it first comes."""
    tasks, correct = [item.task for item in items[::samples]], _correct(items, samples)
    found = {}
    for name in dict.fromkeys(tasks):
        rows = correct[[task == name for task in tasks]]
        found[name] = TaskScore(
            score=float(rows.mean()),
            standard_error=standard_error(rows.mean(axis=1)) if len(rows) > 1 else None,
            pass_at_k=pass_at_k(rows, samples),
            num_problems=len(rows),
        )
    return found
