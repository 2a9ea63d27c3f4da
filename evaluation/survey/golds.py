"""How the answers of demonstrations or problems can be compared: the strictest kind that reads nearly all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...spaces.errors import UserError
from ..extraction.answers import explicit_answer, extract_answer, final_part
from ..settings import Kind
from ..verification.verdict import Verdict
from ..verification.verify import Claim, judge_all, spelled_golds

LOOKED_AT = 400
"""Answers that decide the kind."""
NEARLY_ALL = 0.9
MOST_SPELLED = 0.2
"""Share of mathematical golds that no parser reads, above which they are no mathematics."""
SHORT_CHARACTERS, SHORT_WORDS = 80, 8
"""A whole answer so short can be compared as it is written."""
MARKS = ("tag", "boxed", "hash", "final", "phrase")
OPTION = re.compile(r"^\s*\(?([A-J])[).:]\s*\S", re.MULTILINE)


WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}\b")
SIGN = re.compile(r"[\d\\^=+*/<>√π∞∑∫]")


class Pair(NamedTuple):
    """What a demonstration asks, and its whole answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Reading:
    """How answers are compared."""

    kind: Kind
    why: str
    """For people."""


def reading_of_answers(pairs: Sequence[Pair], kind: Kind | None = None) -> Reading:
    """How the final answers of worked solutions can be compared; `kind` where somebody says it.

    Raises UserError where no kind reads nearly all of them.
    """
    sample = pairs[:LOOKED_AT]
    shares: dict[str, int] = {}
    for each in (kind,) if kind else ("choice", "numeric", "math", "exact"):
        golds = golds_of(sample, each)
        shares[each] = sum(gold is not None for gold in golds)
        enough = shares[each] >= NEARLY_ALL * len(sample) or (kind and shares[each])
        if enough and not (each == "math" and kind is None and _is_no_mathematics([g for g in golds if g])):
            return Reading(each, f"{shares[each]} of {len(sample)} answers end in {DESCRIBED[each]}")
    first = pairs[0].answer if pairs else ""
    counts = ", ".join(f"{name} in {count} of {len(sample)}" for name, count in shares.items())
    raise UserError(
        "a score needs answers that can be compared, but those of the demonstrations are free text: looked for a "
        f"letter of listed options, a number, a formula behind \\boxed{{}} or ####, or a few words ({counts}; the "
        f"first ends in {first[-60:]!r}); name problems with known answers: --tasks problems.jsonl, or a suite such as "
        "--tasks gsm8k",
        field="evaluation.tasks",
    )


def golds_of(pairs: Sequence[Pair], kind: Kind) -> list[str | None]:
    """The final answer of each worked solution as a gold of `kind`; None where it has none that matches itself."""
    found = [_FIND[kind](pair) for pair in pairs]
    kept = [number for number, gold in enumerate(found) if gold]
    judged = judge_all([Claim(pairs[number].answer, found[number] or "", kind) for number in kept])
    right = {number for number, each in zip(kept, judged, strict=True) if each.verdict is Verdict.CORRECT}
    return [gold if number in right else None for number, gold in enumerate(found)]


def kind_of_golds(golds: Sequence[str], questions: Sequence[str]) -> Reading:
    """How the known answers of problems can be compared. Raises UserError where they are whole texts."""
    letters = sum(bool(re.fullmatch(r"\(?[A-Ja-j][).]?", gold.strip())) for gold in golds)
    if letters == len(golds) and all(len(OPTION.findall(question)) > 1 for question in questions):
        return Reading("choice", f"all {len(golds)} golds are letters of listed options")
    short = sum(_is_short(gold) or explicit_answer(gold) is not None for gold in golds)
    judged = judge_all([Claim("", gold, "numeric") for gold in golds]) if short == len(golds) else []
    readable = sum(each.verdict is not Verdict.ERROR for each in judged)
    if readable == len(golds):
        return Reading("numeric", f"all {len(golds)} golds are numbers")
    if not _is_no_mathematics(golds[:LOOKED_AT]):
        return Reading("math", f"{readable} of {len(golds)} golds are numbers, and nearly all are formulas")
    if short >= NEARLY_ALL * len(golds):
        return Reading("exact", f"{short} of {len(golds)} golds are a few words, compared as they are written")
    raise UserError(
        "golds must be numbers, formulas, letters of options or a few words, but "
        f"{len(golds) - short} of {len(golds)} are longer texts (first: {golds[0][:80]!r}); give a column with the "
        "final answers alone, or say how they are compared: --kind",
        field="evaluation.kind",
    )


def _is_no_mathematics(golds: Sequence[str]) -> bool:
    """Whether too many are words: prose, without a digit or a sign of mathematics, or read by no parser."""
    words = sum(SIGN.search(gold) is None or len(WORD.findall(gold)) > SHORT_WORDS for gold in golds)
    return words > MOST_SPELLED * len(golds) or len(spelled_golds(list(golds))) > MOST_SPELLED * len(golds)


def _option(pair: Pair) -> str | None:
    answer = extract_answer(pair.answer, "choice")
    letter = answer.text.strip("(). ").upper() if answer is not None else ""
    return letter if letter in OPTION.findall(pair.question) else None


def _number(pair: Pair) -> str | None:
    answer = extract_answer(pair.answer, "numeric")
    return None if answer is None else answer.text


def _formula(pair: Pair) -> str | None:
    """Only behind a mark: without one, prose that ends in a value would do."""
    answer = extract_answer(pair.answer, "math")
    return answer.text if answer is not None and (answer.rule in MARKS or _is_short(pair.answer)) else None


def _words(pair: Pair) -> str | None:
    answer = extract_answer(pair.answer, "exact")
    if answer is None:
        return None
    whole = (final_part(pair.answer) or "").strip()
    return answer.text if answer.rule in MARKS or _is_short(whole) else None


def _is_short(text: str) -> bool:
    return len(text) <= SHORT_CHARACTERS and len(text.split()) <= SHORT_WORDS and bool(text.strip())


_FIND: dict[str, Callable[[Pair], str | None]] = {
    "choice": _option,
    "numeric": _number,
    "math": _formula,
    "exact": _words,
}
DESCRIBED = {
    "choice": "the letter of a listed option",
    "numeric": "a number",
    "math": "a formula behind a mark",
    "exact": "a few words, compared as they are written",
}
