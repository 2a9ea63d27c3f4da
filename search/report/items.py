"""The answers of two trials side by side: paired differences, what was gained and lost, accuracy by slice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.statistics.stats import bootstrap_interval
from ...spaces.identity import derive_seed

PARTS = 3
"""Slices of a number, e.g. the length of the prompt: thirds."""
MOST = 0.5
"""Share of the problems that must have a fact to be sliced by it (gym tasks give names in a text, too), and of those
whose answer it may repeat."""
FEWEST = 5
"""Problems in each slice of a number; where a value has fewer, values are joined in parts."""
MOST_VALUES = 8
"""A property with more values than this is cut into parts when it is a number, and left out when it is not."""


@dataclass(frozen=True)
class Answer:
    """One completion, as the trial's items file has it."""

    problem: str
    task: str
    sample: int
    prompt: str
    completion: str
    gold: str
    answer: str | None
    verdict: str
    tokens: int

    @property
    def correct(self) -> bool:
        return self.verdict == "correct"


@dataclass(frozen=True)
class Paired:
    """One trial against another on the problems that both have answered. Effects are score differences."""

    problems: int
    effect: float
    low: float
    high: float
    """95 % bootstrap interval over problems: one training seed, no correction for having chosen the trial."""
    gained: int
    """Problems scored higher than by the other trial."""
    lost: int
    equal: int


@dataclass(frozen=True)
class Slice:
    """Accuracy on some of the problems."""

    by: str
    name: str
    problems: int
    score: float
    base: float
    paired: Paired | None


@dataclass(frozen=True)
class Sheet:
    """The answers of one trial."""

    answers: tuple[Answer, ...] = ()
    broken: int = 0
    """Lines that could not be read."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Share of correct samples by problem."""


def read_sheet(path: Path) -> Sheet:
    """The answers in an items file; a torn or foreign line is counted, a missing file is an empty sheet."""
    if not path.is_file():
        return Sheet()
    lines = [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    found = [answer for line in lines if (answer := _answer(line)) is not None]
    samples: dict[str, list[bool]] = {}
    for answer in found:
        samples.setdefault(answer.problem, []).append(answer.correct)
    scores = {problem: sum(correct) / len(correct) for problem, correct in samples.items()}
    return Sheet(tuple(found), len(lines) - len(found), scores)


def last_sheet(folder: Path) -> Sheet:
    """The last answers in a trial's folder: those of its end, or of the rung where it was pruned."""
    file, rungs = folder / "items.jsonl", sorted((folder / "rungs").glob("*.jsonl"))
    return read_sheet(file if file.is_file() or not rungs else rungs[-1])


def _answer(line: str) -> Answer | None:
    try:
        item = json.loads(line)
        return Answer(**{name: item[name] for name in Answer.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None


def paired(scores: Mapping[str, float], base: Mapping[str, float], name: str) -> Paired | None:
    """`scores` against `base` on their common problems; None with fewer than two. `name` seeds the bootstrap."""
    common = sorted(scores.keys() & base.keys())
    if len(common) < 2:
        return None
    differences = np.array([scores[problem] - base[problem] for problem in common])
    low, high = bootstrap_interval(differences, np.random.default_rng(derive_seed("report", name)))
    signs = np.sign(differences)
    gained, lost = int((signs > 0).sum()), int((signs < 0).sum())
    return Paired(len(common), float(differences.mean()), low, high, gained, lost, equal=len(common) - gained - lost)


def slices(sheet: Sheet, base: Sheet, facts: Mapping[str, Mapping[str, Any]] | None = None) -> list[Slice]:
    """Accuracy of both by task, by length of prompt and gold answer, and by what is known of the problems (`facts`)."""
    common = sorted(sheet.scores.keys() & base.scores.keys())
    known = {answer.problem: answer for answer in sheet.answers}
    by: dict[str, Callable[[str], Any]] = {
        "task": lambda problem: known[problem].task,
        "prompt characters": lambda problem: len(known[problem].prompt),
        "gold answer characters": lambda problem: len(known[problem].gold),
    }
    golds = {problem: known[problem].gold for problem in common}
    by |= {name: partial(_fact, facts or {}, name) for name in _telling(facts or {}, golds)}
    return [part for name, value in by.items() for part in _by(name, common, value, sheet, base)]


def _telling(facts: Mapping[str, Mapping[str, Any]], golds: Mapping[str, str]) -> list[str]:
    """Names of facts that most problems have, and that do not just repeat the answer."""
    found: dict[str, list[bool]] = {}
    for problem, gold in golds.items():
        for name, value in facts.get(problem, {}).items():
            found.setdefault(name, []).append(_repeats(value, gold))
    return sorted(
        name for name, same in found.items() if len(same) >= MOST * len(golds) and sum(same) < MOST * len(same)
    )


def _repeats(value: Any, gold: str) -> bool:
    try:
        return float(value) == float(gold.replace(",", ""))
    except (TypeError, ValueError):
        return str(value) == gold


def _fact(facts: Mapping[str, Mapping[str, Any]], name: str, problem: str) -> Any:
    return facts.get(problem, {}).get(name)


def _by(name: str, problems: Sequence[str], value: Callable[[str], Any], sheet: Sheet, base: Sheet) -> Iterable[Slice]:
    for label, group in _groups(problems, value):
        scores, others = ({problem: each.scores[problem] for problem in group} for each in (sheet, base))
        mean, other = (float(np.mean(list(each.values()))) for each in (scores, others))
        yield Slice(name, label, len(group), mean, other, paired(scores, others, f"{name} {label}"))


def _groups(problems: Sequence[str], value: Callable[[str], Any]) -> list[tuple[str, list[str]]]:
    """Problems by value: each value where they are few, thirds of a number where they are many or rare."""
    found = {problem: each for problem in problems if (each := value(problem)) is not None}
    values = sorted(set(found.values()), key=lambda each: (isinstance(each, str), each))
    if len(values) < 2:
        return []
    by_value = [(str(each), [problem for problem in found if found[problem] == each]) for each in values]
    is_label = any(isinstance(each, str) for each in values)
    rare = len(values) > PARTS and min(len(group) for _, group in by_value) < FEWEST
    if len(values) <= MOST_VALUES and (is_label or not rare):
        return by_value
    if is_label:
        return []
    edges = np.quantile(list(found.values()), np.linspace(0, 1, PARTS + 1))
    place = {problem: min(PARTS - 1, int(np.searchsorted(edges[1:], each))) for problem, each in found.items()}
    groups = [[problem for problem in found if place[problem] == part] for part in range(PARTS)]
    shown = [(min(found[p] for p in group), max(found[p] for p in group)) if group else (0, 0) for group in groups]
    return [
        (f"{low:g}" if low == high else f"{low:g} to {high:g}", group)
        for (low, high), group in zip(shown, groups, strict=True)
        if group
    ]


@dataclass(frozen=True)
class SideBySide:
    """One problem, answered by two trials."""

    problem: str
    prompt: str
    gold: str
    ours: Answer
    theirs: Answer

    @property
    def kind(self) -> str:
        """gained, lost, both right or both wrong."""
        if self.ours.correct != self.theirs.correct:
            return "gained" if self.ours.correct else "lost"
        return "both right" if self.ours.correct else "both wrong"


def side_by_side(ours: Sheet, theirs: Sheet, most: int) -> list[SideBySide]:
    """Up to `most` pairs of answers: first what only one got right, then both wrong, few that both got right."""
    other = {(answer.problem, answer.sample): answer for answer in theirs.answers}
    pairs = [
        SideBySide(answer.problem, answer.prompt, answer.gold, answer, other[answer.problem, answer.sample])
        for answer in ours.answers
        if (answer.problem, answer.sample) in other
    ]
    shares = {"gained": 0.4, "lost": 0.3, "both wrong": 0.2, "both right": 0.1}
    chosen = [
        pair
        for kind, share in shares.items()
        for pair in [pair for pair in pairs if pair.kind == kind][: max(1, round(share * most))]
    ]
    return chosen[:most]
