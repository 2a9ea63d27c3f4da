"""Problems with known answers, from files, data sets, named suites, and tasks of reasoning-gym and lm-eval."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.identity import content_id, derive_seed
from ...spaces.settings import Settings
from ...trainers.data.notes import Notes
from ...trainers.data.style import Style
from ..facts import Fact, facts_of
from ..settings import EvaluationSettings, Kind, TaskSettings
from ..verification.pool import shared_pool
from ..verification.verdict import Verdict
from ..verification.verify import Claim, judge, judge_all, spelled_golds
from .asking import Asking, asking_of
from .choice_golds import gold_letters
from .gym_tasks import stream
from .harness_tasks import asked_as, harness_entry, harness_items, known_by
from .problem import Problem
from .prompting import asked_columns, check_template, error_of, gold_of, message, question_of
from .splits import allot, content_hash, is_for_search, is_for_training, training_hashes
from .suites import resolve
from .tables import read_rows

__all__ = ["Problem", "Splits", "TaskCounts", "content_of", "load_problems", "problems_of", "shown", "shuffled"]

FIND_SECONDS = 60.0
"""A user's module may take so long to import."""


class TaskCounts(Settings):
    """What became of a task's rows."""

    task: str
    read: int
    duplicates: int
    """Left out: the question came before, in this or an earlier task."""
    in_training: int
    """Left out: the question is among the training demonstrations."""
    search: int
    """Problems the search split could have had."""
    report: int
    """Problems the report split could have had."""


class Splits(Settings):
    """Problems the search may look at, and problems kept for the report. No question is in both."""

    search: tuple[Problem, ...]
    """In an order drawn by the seed, tasks mixed: every prefix is a fair sample."""
    report: tuple[Problem, ...]
    counts: tuple[TaskCounts, ...]
    notes: tuple[str, ...] = ()
    """What is worth knowing of the files they come from."""

    @property
    def in_training(self) -> int:
        """Problems left out because the training demonstrations contain them."""
        return sum(count.in_training for count in self.counts)


def load_problems(
    settings: EvaluationSettings,
    base: Path,
    seed: int,
    exclude: Collection[str] = frozenset(),
    style: Style | None = None,
) -> Splits:
    """The search and report problems of all tasks, in proportion to the tasks' weights.

    `base`: the folder relative paths start from. `exclude`: content hashes (`splits.training_hashes`) of the training
    prompts; a problem among them is left out and counted. `style`: how the demonstrations ask, which tasks take over
    where they do not say otherwise. Raises UserError for unreadable sources, missing columns,
    golds and verifiers, and when a split cannot be filled.
    """
    tasks, notes = [resolve(task) for task in settings.tasks], Notes()
    _find_verifiers({task.verifier for task in tasks if task.verifier is not None}, base)
    weights = [task.weight for task in tasks]
    wanted = zip(allot(settings.problems, weights), allot(settings.report_problems, weights), strict=True)
    seen: set[str] = set()
    drawn = []
    for task, (search, report) in zip(tasks, wanted, strict=True):
        asked = problems_of(task, base, seed, style, notes)
        drawn.append(_draw(task, asked, seed, {*exclude, *shown(task, style)}, seen, search, report))
    return Splits(
        search=shuffled([problem for part, _, _ in drawn for problem in part], seed),
        report=shuffled([problem for _, part, _ in drawn for problem in part], seed),
        counts=tuple(counts for _, _, counts in drawn),
        notes=notes.lines(),
    )


def content_of(problems: Sequence[Problem]) -> list[Any]:
    """What identifies problems: their ids, and how they are asked where anything comes before their questions."""
    ids = [problem.id for problem in problems]
    asked = [problem.asking.model_copy(update={"day": None}) for problem in problems]
    return ids if all(each == Asking() for each in asked) else [ids, [each.model_dump(mode="json") for each in asked]]


def unreadable_golds(problems: Iterable[Problem]) -> list[tuple[Problem, str]]:
    """Problems whose gold no completion could match, itself included, with the reason."""
    checked = [problem for problem in problems if problem.verifier is None and problem.entry is None]
    judgements = judge_all([problem.claim("") for problem in checked])
    pairs = zip(checked, judgements, strict=True)
    return [(problem, judged.detail) for problem, judged in pairs if judged.verdict is Verdict.ERROR]


def spelled_golds_of(problems: Iterable[Problem]) -> list[str]:
    """Mathematical golds that no parser reads: only the same spelling matches them."""
    return spelled_golds([each.gold for each in problems if each.kind == "math" and not (each.verifier or each.entry)])


def _find_verifiers(verifiers: Collection[str], base: Path) -> None:
    """Make modules in `base` importable by the verification workers, and see that every verifier is there."""
    folder = str(base.resolve())
    if verifiers and folder not in sys.path:
        sys.path.append(folder)
        shared_pool().close()  # workers keep the path that they were started with
    for verifier in sorted(verifiers):
        request = {"do": "find", "verifier": verifier, "module": verifier.partition(":")[0]}
        verdict, detail = shared_pool().ask(request, FIND_SECONDS)
        if verdict != "correct":
            raise UserError(
                f"`verifier` must name a function as `module:function`, but got {verifier!r}: {detail}; put the module "
                f"into {folder}, or install it",
                field="evaluation.tasks",
            )


def shown(task: TaskSettings, style: Style | None) -> frozenset[str]:
    """Content hashes of the questions whose answers every prompt of a task shows."""
    turns = asking_of(task, style or Style()).turns
    return training_hashes(turn["content"] for turn in turns if turn["role"] == "user")


def _draw(
    task: TaskSettings,
    problems: Iterable[Problem],
    seed: int,
    exclude: Collection[str],
    seen: set[str],
    search: int,
    report: int,
) -> tuple[tuple[Problem, ...], tuple[Problem, ...], TaskCounts]:
    """The task's problems for both splits, picked by the seed, with counts."""
    halves: tuple[list[Problem], list[Problem]] = ([], [])
    read = duplicates = in_training = 0
    for problem in problems:
        if task.source == "gym" and len(halves[0]) >= search and len(halves[1]) >= report:
            break  # an endless source ends when both splits are full
        read += 1
        if problem.question_hash in seen:
            duplicates += 1
        elif problem.is_among(exclude):
            in_training += 1
        else:
            all_search = report == 0 and task.source != "gym"
            halves[0 if all_search or is_for_search(problem.question_hash) else 1].append(problem)
        seen.add(problem.question_hash)
    counts = TaskCounts(
        task=label(task),
        read=read,
        duplicates=duplicates,
        in_training=in_training,
        search=len(halves[0]),
        report=len(halves[1]),
    )
    _check_enough(counts, search, report)
    return shuffled(halves[0], seed)[:search], shuffled(halves[1], seed)[:report], counts


def problems_of(
    task: TaskSettings, base: Path, seed: int, style: Style | None = None, notes: Notes | None = None
) -> Iterator[Problem]:
    """Every problem of a task in the order of its source, repeated ones too; without end for a generated task."""
    if task.source == "lm_eval":
        return _harness_problems(task, base)
    asking = asking_of(task, style or Style())
    problems = _gym_problems(task, seed) if task.source == "gym" else _file_problems(task, base, notes or Notes())
    return (problem.model_copy(update={"asking": asking}) for problem in problems)


def shuffled(problems: Iterable[Problem], seed: int) -> tuple[Problem, ...]:
    """In an order that seed and content decide."""
    return tuple(sorted(problems, key=lambda problem: (derive_seed("problem order", seed, problem.id), problem.id)))


def _check_enough(counts: TaskCounts, search: int, report: int) -> None:
    for split, has, needs in (("search", counts.search, search), ("report", counts.report, report)):
        if has < needs:
            raise UserError(
                f"The {split} split needs {needs} problems of {counts.task}, but has {has}: {counts.read} read, "
                f"{counts.duplicates} repeated, {counts.in_training} seen in training; the content of a question "
                f"decides its split (one half each), so ask for fewer `{_FIELDS[split]}` or give more data"
            )


_FIELDS = {"search": "problems", "report": "report_problems"}


def label(task: TaskSettings) -> str:
    """Name of a task, for people."""
    is_file = task.source == "file" or (task.source == "lm_eval" and task.title.endswith((".yaml", ".yml")))
    return Path(task.title.removesuffix(".gz")).stem if is_file else task.title


def _file_problems(task: TaskSettings, base: Path, notes: Notes) -> Iterator[Problem]:
    rows = read_rows(task, base, notes.say)
    for each in rows:
        check_template(task, each.values, each.place)
    letters = gold_letters(task, [each.values for each in rows])
    for (row, place), letter in zip(rows, letters, strict=True):
        gold = gold_of(task, row, letter, place)
        _check_gold(task, gold, place)
        prompt = message(task, row)
        _check_text(prompt + gold, place)
        facts = facts_of(row, asked_columns(task))
        problem = _problem(task, question_of(task, row, place), prompt, gold, task.kind, None, facts)
        yield problem.model_copy(update={"absolute": error_of(task, row, place)}) if task.error_column else problem


def _check_text(text: str, place: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"Problems must be Unicode text, but {place} has half a character in "
            f"{text[max(0, error.start - 20) :][:40]!r}; mend the row",
            field="evaluation.tasks",
        ) from None


def _check_gold(task: TaskSettings, gold: str, place: str) -> None:
    """Refuse what no completion could match; a few broken math golds are left to `check`, which names them."""
    if task.verifier is not None or task.kind == "math":
        return
    judged = judge(Claim("", gold, task.kind))
    if judged.verdict is Verdict.ERROR:
        raise UserError(f"Golds of kind {task.kind} must be readable, but in {place} {judged.detail}")


def _gym_problems(task: TaskSettings, seed: int) -> Iterator[Problem]:
    task = task.model_copy(update={"question_column": "question"})
    for item in stream(task, seed):
        if not is_for_training(content_hash(item.question)):
            prompt = message(task, {"question": item.question})
            entry = item.entry.model_dump() if item.entry is not None else None
            exacter = task.model_copy(update={"tolerance": 0.0}) if item.exact else task
            yield _problem(exacter, item.question, prompt, item.gold, item.kind, entry, item.facts)


def _harness_problems(task: TaskSettings, base: Path) -> Iterator[Problem]:
    items = harness_items(task, base)
    for item, known in zip(items, known_by(items), strict=True):
        entry = harness_entry(task, base, item)
        shown = item.question if task.chat else item.contexts[0]
        problem = _problem(task, item.question, shown, item.gold, "exact", entry, item.facts)
        asked = content_id([problem.id, asked_as(item, task)])[:16]
        own = {"id": asked, "task": item.task, "harness": item, "known_by": known, "chat": False}
        yield problem.model_copy(update=own)


def _problem(
    task: TaskSettings,
    question: str,
    prompt: str,
    gold: str,
    kind: Kind,
    entry: dict[str, Any] | None,
    facts: dict[str, Fact],
) -> Problem:
    question_hash = content_hash(question)
    return Problem(
        id=hashlib.sha256(f"{question_hash}\0{gold}".encode("utf-8", "surrogatepass")).hexdigest()[:16],
        task=label(task),
        question_hash=question_hash,
        prompt=prompt,
        gold=gold,
        kind=kind,
        verifier=task.verifier,
        entry=entry,
        chat=task.chat,
        tolerance=task.tolerance,
        facts=facts,
    )
