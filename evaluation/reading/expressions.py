r"""One expression of an answer: a number, words, or what math-verify's parser makes of it. For worker processes.

Two parsed expressions are equal when they take equal values, to 20 digits, at points that hashing derives from the
names of their symbols: constants at once, others wherever both are real. An identity at several such points holds, up
to chance (Schwartz 1980), and near misses cost as little as hits, where simplification takes seconds. Decimals count
within the tolerance, relative to the gold; integers exactly. What has no value at a point (sets, unknown operators) is
left to math-verify's own comparison, and what no parser reads equals itself alone.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

from .numeric import Number, read_number, same_number
from .words import canonical_unit, leaves_value, same_unit

_DIGITS = 30
_EXACT = 1e-20
_LARGE = 10**15
_MOST_DIGITS = 1_000
_POINTS, _INTEGER_POINTS, _NEEDED = 4, 3, 2


@dataclass(frozen=True)
class Tolerance:
    """How far decimals may differ from the gold; see `numeric.same_number`."""

    relative: float
    absolute: float = 0.0


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
_WORD_SIGNS = re.compile(r"[^\W_][\w\s'’.,:;!?()&/-]*")


def words_of(text: str) -> str | None:
    """A typeset text in lower case without punctuation when it is words; None for mathematics.

    Letters are words when LaTeX says so, when there are three or more in a row, or when they are not Latin; fewer are
    a product of symbols, and xy equals yx.
    """
    plain = re.sub(r"\\text\s*\{([^{}\\]*)\}", r" \1 ", text)
    marked = plain != text
    plain = " ".join(plain.strip(" .!()\"'").split())
    if plain.casefold().startswith("all real") or not _WORD_SIGNS.fullmatch(plain) or _BARE_FUNCTION.search(plain):
        return None
    runs = re.findall(r"[^\W\d_]+", plain)
    is_words = any(len(run) >= 3 or not run.isascii() for run in runs)
    if not runs or not (is_words or marked) or (plain[0].isdigit() and read_number(text) is not None):
        return None
    return re.sub(
        r"(?<=[ap])\s*\.\s*(?=m\b)|\.(?=\s|$)|[,;!?]", "", re.sub(r"^(?:the|an?)\s+(?=\w{2})", "", plain.casefold())
    )


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
    core = (rest[: after.start()] if after else rest).strip()
    if not core:
        return text, None
    outside = [re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", match[0]) if match else "" for match in (before, after)]
    return (core, canonical_unit(outside[1])) if leaves_value(outside[0], outside[1]) else None


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


# --- values at points ------------------------------------------------------------------------------------------------


def same_object(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool:
    """Whether two sympy objects are equal. `decimal`: one is written with a decimal point."""
    from sympy import Expr, MatrixBase

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        pairs = zip(gold.flat(), answer.flat(), strict=False)
        return gold.shape == answer.shape and all(same_object(g, a, tolerance, decimal) for g, a in pairs)
    if isinstance(gold, Expr) and isinstance(answer, Expr):
        with _precision():
            known = _same_values(_plain(gold), _plain(answer), tolerance, decimal)
        if known is not None:
            return known
    return same_by_math_verify(gold, answer)


def same_by_math_verify(gold: Any, answer: Any) -> bool:
    """math-verify's own comparison."""
    from math_verify import verify

    return bool(verify(gold, answer, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=False))


def proportional(gold: Any, answer: Any) -> int:
    """The sign of c when answer = c gold with one c at all points; 0 when there is none."""
    gold, answer = _plain(gold), _plain(answer)
    symbols = gold.free_symbols | answer.free_symbols
    with _precision():
        pairs = [_values((gold, answer), symbols, index) for index in range(_POINTS if symbols else 0)]
        ratios = [pair[1] / pair[0] if pair and pair[0] else 0 for pair in pairs]
        first = ratios[0] if ratios else 0
        if not first or any(not ratio or abs(ratio - first) > _EXACT * abs(first) or ratio.imag for ratio in ratios):
            return 0
        return 1 if first.real > 0 else -1


def _precision() -> Any:
    import mpmath

    return mpmath.workdps(_DIGITS + 5)


def _plain(expression: Any) -> Any:
    """The imaginary unit for i, symbols for unknown functions of symbols, rationals for decimals."""
    from sympy import Float, I, Rational, Symbol
    from sympy.core.function import AppliedUndef

    expression = expression.replace(lambda part: isinstance(part, AppliedUndef), lambda part: Symbol(str(part)))
    return expression.xreplace(
        {symbol: I for symbol in expression.free_symbols if symbol.name == "i"}
        | {part: Rational(str(part)) for part in expression.atoms(Float)}
    )


def _same_values(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool | None:
    """Whether both take the same values; None when that cannot be seen."""
    if gold.is_infinite or answer.is_infinite:
        return bool(gold == answer)
    symbols = gold.free_symbols | answer.free_symbols
    if not symbols:
        return _same_constants(gold, answer, tolerance, decimal)
    pairs = [_values((gold, answer), symbols, index) for index in range(_POINTS + _INTEGER_POINTS)]
    agreed = 0
    for pair in pairs:
        if pair is None or bool(pair[0].imag) != bool(pair[1].imag):
            continue
        if not _close(pair[0], pair[1], tolerance, decimal):
            return False
        agreed += 1
    return True if agreed >= _NEEDED else None


def _same_constants(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool | None:
    values = _values((gold, answer), (), 0)
    if values is None:
        return None
    equal = _close(values[0], values[1], tolerance, decimal)
    if equal and not decimal and abs(values[0]) > _LARGE:
        return _same_integers(gold, answer, values[0])
    return equal


def _same_integers(gold: Any, answer: Any, size: Any) -> bool:
    """Whether two large constants are equal to the last digit before the point."""
    import mpmath

    digits = int(mpmath.log10(abs(size))) + _DIGITS
    return digits > _MOST_DIGITS or bool(abs((gold - answer).evalf(digits, maxn=2 * digits)) < 1)


def _close(gold: Any, answer: Any, tolerance: Tolerance, decimal: bool) -> bool:
    difference, size = abs(gold - answer), abs(gold)
    if difference <= _EXACT * max(size, abs(answer)):
        return True
    is_integer = abs(gold - round(float(gold.real))) <= _EXACT * size if size < 2**53 else False
    relative = tolerance.relative * size if decimal and not is_integer else 0
    return bool(difference <= relative * (1 + _EXACT) + tolerance.absolute)


def _values(expressions: tuple[Any, ...], symbols: Any, index: int) -> list[Any] | None:
    """Complex values of all expressions at one point, or None when one has none there."""
    point = {symbol: _coordinate(symbol.name, index) for symbol in symbols}
    values = [_complex(_at(expression, point)) for expression in expressions]
    return None if any(value is None for value in values) else values


def _at(expression: Any, point: dict[Any, Any]) -> Any:
    from sympy.concrete.expr_with_limits import ExprWithLimits

    binds = expression.has(ExprWithLimits)  # the index of a sum is no symbol of the point
    return expression.subs(point) if binds else expression.xreplace(point)


def _coordinate(name: str, index: int) -> Any:
    """A rational between -3 and 3, never an integer; from `_POINTS` on a positive integer."""
    from sympy import Integer, Rational

    digest = int.from_bytes(sha256(f"{name}\0{index}".encode()).digest()[:6], "big")
    if index >= _POINTS:
        return Integer(2 + digest % 9)
    size = Rational(1 + 2 * (digest % 5003), 3389)
    is_negative = index == _POINTS - 2 or (index == _POINTS - 1 and digest % 2)
    return -size if is_negative else size


def _complex(expression: Any) -> Any:
    """The value of a constant as an mpmath number, or None."""
    import mpmath

    number = expression.evalf(_DIGITS, maxn=300)
    parts = []
    for part in number.as_real_imag():
        if not part.is_Number or not part.is_finite:
            return None
        has_no_digit = getattr(part, "_prec", _DIGITS) <= 1  # what is left of an exact zero
        parts.append(mpmath.mpf(0) if has_no_digit else part._to_mpmath(4 * _DIGITS))
    return mpmath.mpc(*parts)
