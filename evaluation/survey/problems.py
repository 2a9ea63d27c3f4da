"""The tasks that somebody names (files, suites, other libraries'): columns found, kind guessed, problems counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...trainers.data.style import Style
from ...trainers.paths import lies_in
from ..generation.answering import prompt_of
from ..generation.completions import Sampling
from ..problems.load import load_problems
from ..problems.prompting import gold_of, question_of
from ..problems.suites import SUITES
from ..problems.tables import read_rows
from ..settings import EvaluationSettings, Kind, TaskSettings
from .columns import problem_columns
from .facts import GYM, HARNESS, ProblemFacts
from .golds import Reading, kind_of_golds

MOST = 256
"""Problems of the search, and as many for the report."""
LOOKED_AT = 2000
SAMPLE = 20
FEWEST = 2


def task_of(name: str, base: Path, chat: bool, kind: Kind | None) -> tuple[dict[str, Any], str]:
    """An entry of `evaluation.tasks`, and how its answers are compared, for people.

    Raises UserError for a name that is nothing, and for a file whose columns or golds cannot be made out.
    """
    asked: dict[str, Any] = {} if chat else {"chat": False}
    if name.startswith(GYM):
        return {"source": "gym", "path": name.removeprefix(GYM), **asked}, "by the task's own verifier"
    if name.startswith(HARNESS):
        config = {"apply_chat_template": True} if chat else {}
        task = {"source": "lm_eval", "path": name.removeprefix(HARNESS), "config": config}
        return task, "by the task's own filters and metric"
    if name in SUITES and not lies_in(base, name):
        return {"source": "suite", "path": name, **asked}, f"{SUITES[name].kind}, as the suite is published"
    if not lies_in(base, name) and "/" not in name:
        raise UserError(
            f"`--tasks` must be a file of problems, a suite, gym:NAME or lm_eval:NAME, but there is no file {name} in "
            f"{base}, and it is none of the suites {', '.join(SUITES)}",
            field="evaluation.tasks",
        )
    found: dict[str, Any] = {"path": name, **asked}
    rows = [row.values for row in islice(read_rows(TaskSettings(path=name), base), SAMPLE)]
    found |= problem_columns(rows, name)
    reading = Reading(kind, "as you say") if kind else _kind_of(TaskSettings(**found), base)
    return {**found, "kind": reading.kind}, f"{reading.kind}: {reading.why}"


def _kind_of(task: TaskSettings, base: Path) -> Reading:
    if task.choices_column is not None:
        return Reading("choice", f"`{task.choices_column}` holds the options")
    rows = read_rows(task, base)[:LOOKED_AT]
    golds = [gold_of(task, row.values, None, row.place) for row in rows]
    return kind_of_golds(golds, [question_of(task, row.values, row.place) for row in rows])


def problem_facts(
    tasks: Sequence[dict[str, Any]],
    kinds: Sequence[str],
    base: Path,
    training: Collection[str],
    style: Style,
    tokenizer: Any,
) -> ProblemFacts:
    """How many problems there are for search and report. Raises UserError when they are too few, or cannot be asked."""
    few = EvaluationSettings(tasks=tuple(TaskSettings(**task) for task in tasks), problems=FEWEST * len(tasks))
    both = few.model_copy(update={"report_problems": few.problems})
    try:
        counts, report = load_problems(both, base, 0, training, style).counts, MOST
    except UserError:  # too few for two halves, or a fault that the next line raises again
        counts, report = load_problems(few, base, 0, training, style).counts, 0
    fewest = {
        half: min(
            MOST if task.source == "gym" else getattr(each, half) for task, each in zip(few.tasks, counts, strict=True)
        )
        for half in ("search", "report")
    }
    search, report = (min(most, len(tasks) * fewest[half]) for half, most in (("search", MOST), ("report", report)))
    asked = few.model_copy(update={"problems": search, "report_problems": report})
    splits = load_problems(asked, base, 0, training, style)
    sampling = Sampling(1, frozenset())
    prompts = (prompt_of(tokenizer, each, sampling).ids for each in (*splits.search, *splits.report))
    return ProblemFacts(
        tasks=tuple(tasks),
        kinds=tuple(kinds),
        search=search,
        report=report,
        longest_prompt=max(map(len, prompts)),
        examples=tuple((problem.prompt, problem.gold) for problem in splits.search[:2]),
    )
