"""Compares an extracted answer with the gold, one function a kind; what needs sympy is left to a worker.

Every function takes (answer or None, gold, tolerance) and gives a judgement or a pending comparison. An unreadable gold
is an ERROR whether or not there is an answer.
"""

import re
import unicodedata
from collections.abc import Callable

from .answers import Answer
from .numeric import same_number, single_number
from .verdict import Judgement, Pending, Verdict

Comparison = Callable[[Answer | None, str, float], Judgement | Pending]

_MAX_ANSWER = 2_000  # characters; no final answer is longer, and a parser could take minutes over it


def numeric(answer: Answer | None, gold: str, tolerance: float) -> Judgement:
    """One number; integers exactly, other golds within the relative tolerance."""
    expected = single_number(gold)
    if expected is None:
        return _unreadable(gold, "is not one number")
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    number = single_number(answer.text)
    return _decide(number is not None and same_number(expected, number, tolerance), answer)


def choice(answer: Answer | None, gold: str, tolerance: float) -> Judgement:
    """The letter of one option."""
    expected = option_letter(gold)
    if expected is None:
        return _unreadable(gold, "is not the letter of one option")
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    return _decide(option_letter(answer.text) == expected, answer)


def exact(answer: Answer | None, gold: str, tolerance: float) -> Judgement:
    """Equality after Unicode NFC and with white space collapsed; case counts."""
    if answer is None:
        return Judgement(Verdict.NO_ANSWER)
    return _decide(_normal(answer.text) == _normal(gold), answer)


def math(answer: Answer | None, gold: str, tolerance: float) -> Judgement | Pending:
    """Words by their letters, plain numbers exactly, everything else symbolically in a worker."""
    words = _words(gold)
    expected = single_number(gold)
    if answer is None:
        known = words is not None or expected is not None
        return Judgement(Verdict.NO_ANSWER) if known else Pending({"do": "math", "answer": "", "gold": gold})
    if words is not None:
        return _decide(_letters(answer.text) == words, answer)
    if _BASED.fullmatch(gold) or _BASED.fullmatch(answer.text):
        return _decide(_same_digits(gold, answer.text), answer)
    number = single_number(answer.text)
    if expected is not None and number is not None and not ("=" in gold and "=" in answer.text):
        same_unit = ("%" in gold) == ("%" in answer.text)
        if expected == number or (same_unit and expected.denominator == number.denominator == 1):
            return _decide(expected == number, answer)
    text = answer.text if len(answer.text) <= _MAX_ANSWER else "?"
    return Pending({"do": "math", "answer": text, "gold": gold}, answer.text)


COMPARISONS: dict[str, Comparison] = {"math": math, "numeric": numeric, "choice": choice, "exact": exact}


_OPTION = re.compile(r"(?:(?:option|choice|letter)\s*:?\s*)?\(?\s*([A-Za-z])\s*\)?(?=$|[\s).:,;\]])", re.I)
_SECOND_OPTION = re.compile(r"\s*\)?\s*(?:,|/|&|\bor\b|\band\b)\s*\(?\s*(?:[A-J]\b|[a-j]\))")
_REASON = re.compile(r"\s*(?:$|[).:,;\]*(]|(?:because|since|as|is|which|based|due|for|with)\b)")


def option_letter(text: str) -> str | None:
    """The upper-case letter of the one option that `text` names, as in "B", "(b)", "B. Paris"; None otherwise."""
    text = _unformatted(text).replace("*", "").strip()
    found = _OPTION.match(text)
    if found is None or _SECOND_OPTION.match(text, found.end(1)):
        return None
    letter, rest = found.group(1), text[found.end(1) :]
    is_article = letter in "AaIi" and not _REASON.match(rest)
    is_word = letter.islower() and len(text) > 1 and not rest.startswith((")", ".", ":"))
    return None if is_article or is_word else letter.upper()


def _decide(equal: bool, answer: Answer) -> Judgement:
    return Judgement(Verdict.CORRECT if equal else Verdict.WRONG, answer.text)


def _unreadable(gold: str, why: str) -> Judgement:
    return Judgement(Verdict.ERROR, None, f"the gold answer {gold[:80]!r} {why}")


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


_BASED = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")  # 2516_8: sympy would read a name and drop the base


def _same_digits(gold: str, answer: str) -> bool:
    """Equal digits, and the same base unless the answer leaves it out; a gold without a base is decimal."""
    expected, found = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if expected is None:
        return found is not None and found[2] == "10" and found[1] == gold
    return answer == expected[1] if found is None else found.groups() == expected.groups()


_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LETTERS = re.compile(r"[A-Za-z][A-Za-z' -]*")


def _unformatted(text: str) -> str:
    return _TEXT.sub(r"\1", text)


def _letters(text: str) -> str:
    return " ".join(_unformatted(text).strip(" .*!").split()).lower()


def _words(gold: str) -> str | None:
    """The gold in lower case when it is text: `\\text{...}`, or letters with a word of four or more; else None.

    Shorter words are products of symbols: xy equals yx, and only a computer algebra system can tell.
    """
    plain = _unformatted(gold).strip(" .")
    is_text = plain != gold.strip(" .") or any(len(word) >= 4 for word in plain.split())
    return _letters(gold) if is_text and _LETTERS.fullmatch(plain) else None
