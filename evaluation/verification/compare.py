"""Compares an extracted answer with the gold, one function a kind; what needs sympy is left to a worker.

Every function takes (answer or None, gold, tolerance) and gives a judgement or a pending comparison. An unreadable gold
is an ERROR whether or not there is an answer.
"""

import re
import unicodedata
from collections.abc import Callable

from ..extraction.choices import option_letter
from ..extraction.sentences import Answer, clean
from ..reading.expressions import canonical, words_of
from ..reading.numeric import Number, read_number, same_number
from ..reading.points import Tolerance
from ..reading.rounding import exact_and_rounded
from ..reading.shapes import relation
from ..reading.typography import typeset
from .verdict import Judgement, Pending, Verdict

Comparison = Callable[[Answer | None, str, Tolerance], Judgement | Pending]

_MAX_ANSWER = 2_000  # characters; no final answer is longer, and a parser could take minutes over it


def numeric(answer: Answer | None, gold: str, tolerance: Tolerance) -> Judgement:
    """One number; integers exactly, other golds within the tolerance."""
    expected = read_number(gold)
    if expected is None:
        return _unreadable(gold, "is not one number")
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    equal = _says(expected, answer.text, tolerance)
    if not equal and (sides := exact_and_rounded(typeset(answer.text[:_MAX_ANSWER]))):
        equal = _says(expected, sides[0], tolerance)
    return _decide(equal, answer)


def _says(expected: Number, text: str, tolerance: Tolerance) -> bool:
    number = read_number(text)
    return number is not None and same_number(expected, number, tolerance.relative, tolerance.absolute)


def choice(answer: Answer | None, gold: str, tolerance: Tolerance) -> Judgement:
    """The letter of one option."""
    expected = option_letter(gold)
    if expected is None:
        return _unreadable(gold, "is not the letter of one option")
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    return _decide(option_letter(answer.text) == expected, answer)


def exact(answer: Answer | None, gold: str, tolerance: Tolerance) -> Judgement:
    """Equality after Unicode NFC and with white space collapsed; case counts."""
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    readings = (answer.text, clean(answer.text), clean(_without_text(answer.text)))
    return _decide(_normal(gold) in map(_normal, readings), answer)


def math(answer: Answer | None, gold: str, tolerance: Tolerance) -> Judgement | Pending:
    """Equal texts, words and numbers here; everything else symbolically in a worker."""
    expected = typeset(gold)
    if not is_readable(gold):
        return _unreadable(gold, "cannot be parsed")
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    found = typeset(answer.text[:_MAX_ANSWER])
    if canonical(expected) == canonical(found):
        return _decide(True, answer)
    if _LETTERED.fullmatch(gold.strip()):
        return _decide(option_letter(answer.text) == option_letter(gold), answer)
    words = words_of(expected)
    if words is not None:
        return _decide(words == words_of(found, spoken=True), answer)
    if _BASED.fullmatch(expected) or _BASED.fullmatch(found):
        return _decide(_same_digits(expected, found), answer)
    numbers = read_number(gold), read_number(answer.text)
    both_assigned = _is_assigned(expected) and _is_assigned(found)
    if numbers[0] is not None and numbers[1] is not None and not both_assigned:
        equal = same_number(numbers[0], numbers[1], tolerance.relative, tolerance.absolute)
        if equal or "\\approx" not in found:
            return _decide(equal, answer)
    if len(answer.text) > _MAX_ANSWER:
        return _decide(False, answer)
    job = {"do": "math", "answer": answer.text, "gold": gold, "relative": tolerance.relative}
    return Pending(job | {"absolute": tolerance.absolute}, answer.text)


COMPARISONS: dict[str, Comparison] = {"math": math, "numeric": numeric, "choice": choice, "exact": exact}

_LETTERED = re.compile(r"\$?(?:\\text(?:bf|rm)?|\\mathrm|\\mathbf)?\s*\{?\s*\(?([A-J])\)?\s*\}?\$?")


def is_readable(gold: str) -> bool:
    """Whether a mathematical gold says anything: closed braces, and a letter, a digit or a symbol."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", gold.replace("\\\\", "")):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0 and bool(re.search(r"[^\W_]|\\[a-zA-Z]", typeset(gold)))


def _is_assigned(text: str) -> bool:
    """x = 5 and y = 5 are both the number 5, and yet not the same."""
    return bool(relation(text).operators)


def _decide(equal: bool, answer: Answer) -> Judgement:
    return Judgement(Verdict.CORRECT if equal else Verdict.WRONG, answer.text)


def _unreadable(gold: str, why: str) -> Judgement:
    return Judgement(Verdict.ERROR, None, f"the gold answer {gold[:80]!r} {why}")


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _without_text(text: str) -> str:
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)


_BASED = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")  # 2516_8: sympy would read a name and drop the base


def _same_digits(gold: str, answer: str) -> bool:
    """Equal digits, and the same base unless the answer leaves it out; a gold without a base is decimal."""
    expected, found = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if expected is None:
        return found is not None and found[2] == "10" and found[1] == gold
    return answer == expected[1] if found is None else found.groups() == expected.groups()
