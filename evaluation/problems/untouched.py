"""Problems for a confirmation that no trial has seen, where those kept for it do not suffice or were seen.

A study that kept none back has searched with both halves of a task, and one may want more than were kept. What is left
is asked for in the order of the halves, the report half first, each drawn by the seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ...spaces.errors import UserError
from ...trainers.data.style import Style
from ..settings import EvaluationSettings, TaskSettings
from .load import Problem, problems_of, shown, shuffled
from .splits import allot, is_for_search
from .suites import resolve

FIELD = "evaluation.report_problems"


def untouched_problems(
    settings: EvaluationSettings,
    base: Path,
    seed: int,
    exclude: Collection[str],
    seen: Collection[str],
    style: Style | None = None,
) -> tuple[Problem, ...]:
    """`settings.report_problems` problems of all tasks, in proportion to their weights, in an order drawn by the seed.

    `exclude`: content hashes of the training prompts; `seen`: ids or question hashes of problems that a trial saw.
    Raises UserError when a task has too few others.
    """
    tasks = [resolve(task) for task in settings.tasks]
    wanted = allot(settings.report_problems, [task.weight for task in tasks])
    known, found = set(seen), []
    for task, count in zip(tasks, wanted, strict=True):
        problems = problems_of(task, base, seed, style)
        found += _drawn(task, problems, seed, {*exclude, *shown(task, style)}, known, count)
    return shuffled(found, seed)


def _drawn(
    task: TaskSettings, problems: Iterator[Problem], seed: int, exclude: Collection[str], known: set[str], count: int
) -> list[Problem]:
    """`count` problems of one task; `known` grows by their questions."""
    halves: tuple[list[Problem], list[Problem]] = ([], [])
    for problem in _others(problems, exclude, known):
        halves[is_for_search(problem.question_hash)].append(problem)
        if task.source == "gym" and len(halves[0]) >= count:
            break  # an endless source
    left = [*shuffled(halves[0], seed), *shuffled(halves[1], seed)]
    if len(left) < count:
        raise UserError(
            f"A confirmation needs {count} problems of {task.title} that no trial has seen, but {len(left)} are left; "
            f"ask for fewer `report_problems`, or start another study on more problems that keeps some back",
            field=FIELD,
        )
    return left[:count]


def _others(problems: Iterator[Problem], exclude: Collection[str], known: set[str]) -> Iterator[Problem]:
    for problem in problems:
        fresh = not {problem.id, problem.question_hash} & known
        known.add(problem.question_hash)
        if fresh and not problem.is_among(exclude):
            yield problem
