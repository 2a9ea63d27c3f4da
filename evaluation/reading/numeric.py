r"""Reads one number out of an answer, exactly, and compares it with the gold.

A number is digits with optional sign, thousands separators, decimals, a power of ten or a scale word ("5 million"), a
fraction or a mixed number. Around it only units, currency and words that leave it as it is may stand (`words.py`). Left
of an equals sign only a name ("x", "f(2)", "Total cost") or a sum that comes to it ("24 / 2 = 12"). Two numbers ("5 or
6"), an expression ("2x + 3"), a relation ("x > 5") or a hedge ("not 5", "at least 5") make it no single number.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from .arithmetic import comes_to
from .shapes import SUM_OF_NAMES, is_name, relation
from .typography import typeset
from .words import canonical_unit, is_denied, leaves_value, same_unit

DEFAULT_TOLERANCE = 1e-6
"""Relative; for golds that are no integers. Integers are compared exactly."""

MAX_NUMBER = 1_000
"""Characters of a number that is still read."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d{1,2}(?:,\d{2}(?!\d))++,\d{3}(?!,?\d)|\d++)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*+)?|\.\d++)"
_EXPONENT = r"(?:\{\s*(?P<power>[-+]?\d{1,4})\s*\}|\(\s*(?P<power1>[-+]?\d{1,4})\s*\)|(?P<power2>[-+]?\d{1,4})(?!\d))"
_MONEY = r"(?:\\\$|[€£¥₹₩₽₫₺]|\b(?:USD|EUR|GBP|Rs\.?|US\\\$)\s)\s*"
NUMBER = re.compile(rf"(?:(?<![\w.)\]}}])[-+])?(?<![A-Za-z\d]){_DECIMAL}(?:[eE][-+]?\d{{1,3}}(?!\w))?")
"""A plain number, wherever it stands in a text."""

VALUE = re.compile(
    rf"(?P<sign>(?<![\w.)\]}}])[-+])?(?:(?P<money>{_MONEY})(?P<sign1>[-+])?)?(?<![A-Za-z\d.])(?:"
    rf"(?:(?P<whole>{_DIGITS})\s*-?\s*)?\\frac\s*\{{\s*(?P<minus>-?)\s*(?P<top>{_DECIMAL})\s*\}}\s*\{{\s*(?P<minus1>-?)\s*"
    rf"(?P<bottom>{_DECIMAL})\s*\}}"
    rf"|(?:(?P<whole1>\d++)\s+(?:and\s+)?)?(?P<top1>{_DECIMAL})\s*/\s*(?P<minus2>-?)(?P<bottom1>{_DECIMAL})"
    rf"|(?P<fixed>\d*\.\d*)\\(?:overline|bar)\s*\{{(?P<period>\d+)\}}"
    rf"|(?P<ten>10)\s*\^\s*(?:\{{\s*(?P<power4>[-+]?\d{{1,4}})\s*\}}|(?P<power5>-?\d))(?!\d)"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<power3>[-+]?\d{{1,4}})(?!\w)"
    rf"|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*{_EXPONENT})?)"
    r"(?P<percent>\s*(?:\\?%|percent\b|per\s+cent\b))?"
    r"(?:\s*(?P<scale>(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore)\b|[百千万萬亿億]))?",
    re.I,
)
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7, "百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A number as written."""

    value: Fraction
    whole: bool
    """Written as an integer, so that it is compared exactly."""
    decimal: bool = False
    """Written with a decimal point, so that it may be rounded."""
    percent: bool = False
    unit: str | None = None
    """Of measurement or currency, in one spelling; None without one."""


def read_number(text: str) -> Number | None:
    """The one number that an answer consists of, or None."""
    if len(text) > 4 * MAX_NUMBER:
        return None
    sides = relation(typeset(text))
    if set(sides.operators) - {"=", "\\approx"}:
        return None
    *left, last = sides.parts
    found = _phrase(last)
    if found is None and left:  # 5 = x, 64 = 8^2
        first = _phrase(sides.parts[0])
        others = sides.parts[1:]
        return first if first and all(is_name(part) or comes_to(part, first.value) for part in others) else None
    if found is None:
        return None
    sums = [is_name(part) or comes_to(part, found.value) for part in left]
    is_named = all(sums) or (len(left) > 1 and all(sums[1:]) and SUM_OF_NAMES.fullmatch(left[0]) is not None)
    return found if is_named else None


def same_number(gold: Number, answer: Number, tolerance: float = DEFAULT_TOLERANCE, absolute: float = 0.0) -> bool:
    """Integers and fractions: equality. With a decimal: |answer - gold| <= tolerance * |gold| + absolute.

    A percentage equals the number of per cent and the fraction: 50 % is 50 and 0.5. Two units of measurement must be
    the same; one may be left out.
    """
    if not same_unit(gold.unit, answer.unit):
        return False
    readings = {answer.value}
    if answer.percent != gold.percent:
        hundredth = Fraction(1, 100)
        readings.add(answer.value * hundredth if answer.percent else answer.value / hundredth)
        if answer.percent and abs(gold.value) < 1:
            readings.discard(answer.value)  # 0.5 % is no half
    is_rounded = not gold.whole and (gold.decimal or answer.decimal)
    allowed = Fraction(str(absolute)) + (Fraction(str(tolerance)) * abs(gold.value) if is_rounded else 0)
    return any(abs(reading - gold.value) <= allowed for reading in readings)


def _phrase(text: str) -> Number | None:
    """One number with words and units around it."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    text = _BY_POINTS.sub(lambda match: f"{match[1].replace('.', '')}.{match[2]}", text)
    text = re.sub(r"^\(([^()]*)\)$|^\{([^{}]*)\}$", lambda m: m[1] or m[2] or "", text)
    text = re.sub(r"^(?:\\approx\s*)?([-+]?)\s*", r"\1", text)
    if (restated := _RESTATED.match(text)) and leaves_value(restated[1], ""):
        text = text[restated.end() :]
    remark = _REMARK.search(text)
    if remark and VALUE.search(text[: remark.start()]) and not is_denied(remark[0]):
        text = text[: remark.start()]
    found = VALUE.search(text)
    if found is None:
        return None
    negative, before = _sign_word(text[: found.start()])
    unit, after = _unit(text[found.end() :], quoted="'" in before or '"' in before)
    money = canonical_unit(found["money"]) if found["money"] else None
    value = _value(found)
    if value is None or not _is_clear(before, after) or (money and unit and len(unit) == 1):
        return None
    integral = value.denominator == 1 and not any(found[name] for name in _POWERS)
    return Number(-value if negative else value, integral, "." in found[0], bool(found["percent"]), unit or money)


def _sign_word(before: str) -> tuple[bool, str]:
    match = re.search(r"\b(?:minus|negative)\s*$", before, re.I)
    return (False, before) if match is None else (True, before[: match.start()])


_BY_POINTS = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d{1,2})(?![\d,.]*\d)")  # 1.234,50
_RESTATED = re.compile(r"([^\d]{1,60})[,;]?\s*(?:\bi\.\s?e\.|\bthat\s+is),?\s+(?=\S)")  # a dozen, i.e. 12
_REMARK = re.compile(r"(?<=[\w})%])\s+\((?!\s*(?:of|out|to|mod|base|per|each|times|[-+*/^=<>x±\\]))[^()]*\)\s*[.!]?$")
_UNIT_WORD = (
    r"(?:(?:square|cubic|sq\.?|cu\.?)\s+)?(?:\\Omega|(?:\\mu\s*)?[A-Za-z]+)"
    r"(?:\s*\^\s*\{?\s*-?\d\s*\}?|\s+(?:squared|cubed)\b)?"
)
_UNIT = re.compile(
    rf"\s*(\^\\circ\s*[CFK]?(?![A-Za-z])|[€£¥₹₩₽₫₺¢]|\\\$"
    rf"|{_UNIT_WORD}(?:\s*(?:/|\\cdot|\*|\bper\b|\s)\s*\(?{_UNIT_WORD}\)?){{0,3}})"
)
_GLUED = frozenset("gmshlLVWNJC")
"""Single letters that are units right behind a number; with a space some more are."""


def _unit(after: str, *, quoted: bool) -> tuple[str | None, str]:
    """A unit right behind a number, in one spelling, and the text behind it."""
    if after[:1] in ("'", '"') and not quoted:
        return f"prime {after[0]}", after[1:]
    match = _UNIT.match(after)
    if match is None:
        return None, after
    pieces = [match[1]]
    while "/" not in pieces[-1] and len(pieces[-1].split()) > 1:
        pieces.append(pieces[-1].rsplit(maxsplit=1)[0])
    for piece in pieces:
        letter_apart = (
            len(piece) > 1 or not piece.isalpha() or piece in _GLUED or (after[:1].isspace() and piece in "AFKTd")
        )
        unit = canonical_unit(piece) if letter_apart else None
        if unit or (letter_apart and len(piece) == 1):
            return unit, after[after.index(piece) + len(piece) :]
    return None, after


_ALLOWED = re.compile(
    r"(?:[^\W\d_]|[\s.,;:()\"'?°%\u3002\uff0c-]|\\%|\^\\circ|(?<=[A-Za-z)])\s*(?:/|\\cdot|\*)(?=\s*[A-Za-z(])|^/(?=\s*[A-Za-z]{2}))*"
)
_EXPONENT_OF_UNIT = re.compile(r"(?<=[A-Za-z)])\s*\^\s*\{?\s*-?[1-9]\s*\}?(?![A-Za-z\d])")
_PRODUCT = re.compile(
    r"[A-Za-z]{2,3}(?![^\W\d_])|\s+(?!(?:in|of|at|on|by|to|as|is|so|we|he|it|an|am|pm|up|us)\b)[A-Za-z]{2}(?![^\W\d_])"
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th|am|pm|AM|PM)\b")
_VARIABLE = re.compile(r"(?<![^\W\d_])(?<!['’-])(?![aI]\b)[A-Za-z](?![^\W\d_]|')")
_DASH = re.compile(r"(?<![^\W\d_])-|-(?![^\W\d_])")


def _is_clear(before: str, after: str) -> bool:
    """Whether what stands around a number and its unit is no part of it."""
    if _PRODUCT.match(after) and not _ORDINAL.match(after):
        return False  # 3xy; a unit has been taken off before
    after = _EXPONENT_OF_UNIT.sub("", after)
    hyphen = after[1:] if after[:1] == "-" and after[1:2].isalpha() else after  # 18-year-old
    if not (_ALLOWED.fullmatch(before) and _ALLOWED.fullmatch(after)):
        return False
    if any(pattern.search(part) for pattern in (_VARIABLE, _DASH) for part in (before, hyphen)):
        return False
    return leaves_value(before, after)


_POWERS = ("power", "power1", "power2", "power3", "power4", "power5")


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > MAX_NUMBER:
        return None
    top, bottom = found["top"] or found["top1"], found["bottom"] or found["bottom1"]
    if top is not None:
        value = _quotient(top, bottom, (found["minus"], found["minus1"], found["minus2"]))
        whole = found["whole"] or found["whole1"]
        if value is None or (whole and not 0 < value < 1):
            return None
        value += Fraction(whole.replace(",", "")) if whole else 0
    elif found["period"] is not None:
        value = _repeating(found["fixed"], found["period"])
    else:
        power = next((found[name] for name in _POWERS if found[name]), "0")
        value = (Fraction(1) if found["ten"] else _plain(found["decimal"])) * Fraction(10) ** int(power)
    value *= _SCALES[found["scale"].lower()] if found["scale"] else 1
    return -value if "-" in (found["sign"] or "") + (found["sign1"] or "") else value


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").rstrip(".") or "0")


def _quotient(top: str, bottom: str, signs: tuple[str | None, ...]) -> Fraction | None:
    denominator = _plain(bottom)
    sign = -1 if sum(part == "-" for part in signs) % 2 else 1
    return sign * _plain(top) / denominator if denominator else None


def _repeating(fixed: str, period: str) -> Fraction:
    """0.1(6) = 0.1 + 6 / 90."""
    decimals = len(fixed.partition(".")[2])
    return Fraction(fixed.rstrip(".") or "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**decimals)
