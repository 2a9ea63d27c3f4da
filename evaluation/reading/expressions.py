r"""One expression of an answer: a number, words, or what math-verify's parser makes of it. For worker processes.

Words and units around an expression are taken off when they leave it as it is. What no parser reads equals itself
alone.
"""

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from .numeric import Number, read_number, same_number
from .points import Tolerance, same_object
from .words import canonical_unit, leaves_value, same_unit

# --- texts and words -------------------------------------------------------------------------------------------------


def canonical(text: str) -> str:
    """A typeset text without what LaTeX does not need: braces around one sign, spaces, signs of multiplication."""
    text = re.sub(r"\{\s*(\w)\s*\}", r"\1", text.strip(" .").removeprefix("+"))
    text = re.sub(r"\s*\\cdot(?![A-Za-z])\s*|\s*\*\s*", " ", text)
    return re.sub(r"(?<=\d)\s+(?=\d)|(?<=[A-Za-z])\s+(?=[A-Za-z])|\s+", lambda m: " " if _parts_words(m) else "", text)


def _parts_words(match: re.Match[str]) -> bool:
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    return (before.isdigit() and after.isdigit()) or (before.isalpha() and after.isalpha())


_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|gcd|lcm|lim|det|mod"
)
_BARE_FUNCTION = re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])")
_CLOCK = re.compile(r"(?<=\d)(?::00)?\s*([ap])\s*\.?\s*m\b\.?", re.I)
_WORD_SIGNS = re.compile(r"[^\W_][\w\s'’.,:;!?()&/-]*")


def words_of(text: str, *, spoken: bool = False) -> str | None:
    """A typeset text in lower case without punctuation when it is words; None for mathematics.

    Letters are words when LaTeX says so, when there are three or more in a row, or when they are not Latin; fewer are
    a product of symbols, and xy equals yx, unless `spoken`: the other answer is words.
    """
    plain = re.sub(r"\\text\s*\{([^{}\\]*)\}", r" \1 ", text)
    marked = spoken or plain != text
    plain, clocks = _CLOCK.subn(r" \1m", plain)
    plain = " ".join(plain.strip(" .!()\"'").split())
    if plain.casefold().startswith("all real") or not _WORD_SIGNS.fullmatch(plain) or _BARE_FUNCTION.search(plain):
        return None
    runs = re.findall(r"[^\W\d_]+", plain)
    is_words = any(len(run) >= 3 or not run.isascii() for run in runs)
    is_number = plain[:1].isdigit() and not clocks and read_number(text) is not None
    if not runs or is_number or not (is_words or marked or clocks or plain.casefold() == "no"):
        return None
    return re.sub(r"\.(?=\s|$)|[,;!?]", "", re.sub(r"^(?:the|an?)\s+(?=\w{2})", "", plain.casefold()))


_NO_SYMBOL = r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]{3,}"
_UNUSED = ("\\upsilon", "\\kappa", "\\zeta", "\\iota", "\\chi", "\\eta", "\\tau")


def with_case(gold: str, answer: str) -> tuple[str, str]:
    """Both texts, with other letters for the capitals that stand beside their small ones: parsers see no difference
    between R and r, and R^2 - r^2 would be 0."""
    letters = [set(re.sub(_NO_SYMBOL, " ", text)) for text in (gold, answer)]
    both = sorted({letter for each in letters for letter in each if letter.isupper() and letter.lower() in each})
    free = [letter for letter in _UNUSED if letter not in gold + answer]
    other = dict(zip(both, free, strict=False))
    pattern = re.compile(f"{_NO_SYMBOL}|[A-Z]")
    texts = [pattern.sub(lambda m: f"{other[m[0]]} " if m[0] in other else m[0], text) for text in (gold, answer)]
    return texts[0], texts[1]


_GEOMETRIC = re.compile(r"\\(?:angle|triangle|overline\s*\{\s*[A-Z]{2})")

# --- one expression --------------------------------------------------------------------------------------------------

_LEADING = re.compile(
    rf"(?:(?:\\text\s*\{{[^{{}}]*\}}|(?!(?:{_FUNCTIONS})\b)[^\W\d_]{{2,}}[.,:]?)\s+)+(?=[\\\d({{\[-]|[a-z]\b)|\\\$\s*"
)
_TRAILING = re.compile(
    r"(?<=[\w})\]!'])(?:\s*(?:\\text\s*\{[^{}]*\}|\^\\circ\s*[CF]?)(?:\s*\^\s*\{?-?\d\}?)?"
    rf"|\s+(?!(?:{_FUNCTIONS})\b)[^\W\d_]{{2,}}(?:\s*\^\s*\{{?-?\d\}}?)?(?:\s*/\s*[A-Za-z]+(?:\s*\^\s*\{{?-?\d\}}?)?)?[.]?)+$"
)


def _core(text: str) -> tuple[str, str | None] | None:
    """(expression without the words and the unit around it, unit); None when the words are part of the value."""
    before = _LEADING.match(text)
    rest = text[before.end() :] if before else text
    after = _TRAILING.search(rest)
    after = after if after and _says_what(after[0]) else None
    core = (rest[: after.start()] if after else rest).strip()
    if not core:
        return text, None
    outside = [re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", match[0]) if match else "" for match in (before, after)]
    return (core, canonical_unit(outside[1])) if leaves_value(outside[0], outside[1]) else None


def _says_what(trailing: str) -> bool:
    """Whether plain letters behind an expression are a unit or words, and no product of symbols."""
    plain = re.sub(r"\\text\s*\{[^{}]*\}|\\circ", " ", trailing)
    words = re.findall(r"[^\W\d_]+", plain)
    return canonical_unit(plain) is not None or all(
        len(word) >= 4 or word in ("of", "in", "per", "the") for word in words
    )


def same_value(gold: str, answer: str, tolerance: Tolerance) -> bool:
    """Whether two expressions, typeset, are equal."""
    if canonical(gold) == canonical(answer):
        return True
    numbers = read_number(gold), read_number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return same_number(numbers[0], numbers[1], tolerance.relative, tolerance.absolute)
    spoken = words_of(gold)
    if spoken is not None or words_of(answer) is not None:
        return spoken == words_of(answer)
    if _GEOMETRIC.search(gold):
        return False  # the letters of an angle have an order
    cores = _core(gold), _core(answer)
    if cores[0] is None or cores[1] is None or not same_unit(cores[0][1], cores[1][1]):
        return False
    texts = cores[0][0], cores[1][0]
    parsed = [_rational(number) if number else parse(text) for number, text in zip(numbers, texts, strict=True)]
    if parsed[0] is None or parsed[1] is None:
        return canonical(texts[0]) == canonical(texts[1])
    decimal = re.search(r"\.\d", texts[0] + " " + texts[1]) is not None
    return same_object(parsed[0], parsed[1], tolerance, decimal)


def is_readable(text: str) -> bool:
    """Whether an expression is a number, words, or read by the parser."""
    if read_number(text) is not None or words_of(text) is not None:
        return True
    core = _core(text)
    return core is not None and parse(core[0]) is not None


def _rational(number: Number) -> Any:
    from sympy import Rational

    return Rational(number.value.numerator, number.value.denominator)


@lru_cache(maxsize=2048)
def parse(text: str) -> Any:
    """What math-verify reads in a typeset expression, a sympy object; None when it reads nothing."""
    from math_verify import LatexExtractionConfig
    from math_verify import parse as read

    usual = LatexExtractionConfig().normalization_config
    config = LatexExtractionConfig(boxed_match_priority=0, normalization_config=replace(usual, units=False))
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text.replace("**", "^"))
    text = text.replace("\\\\", " \\\\ ")  # rows of a matrix
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = re.sub(r"(?<![\\A-Za-z])([Ee])\s*_", lambda match: r"\Xi_" if match[1] == "E" else r"\xi_", text)
    found = read(f"\\boxed{{{text}}}", [config], "no_fallback", "first_match", parsing_timeout=None)
    return found[0] if found else None
