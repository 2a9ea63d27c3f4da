r"""Reads one number out of an answer, exactly, and compares it with the gold.

A number is digits with optional sign, thousands commas, decimals, exponent, or a fraction of two such; around it only
words, units and currency may stand. Two numbers ("5 or 6"), an expression ("2x + 3"), a hedge ("not 5", "at least 5")
or a scale word ("5 million") make it no single number.
"""

import re
from fractions import Fraction

DEFAULT_TOLERANCE = 1e-6
"""Relative; for golds that are no integers. Integers are compared exactly."""

MAX_NUMBER = 1_000
"""Characters of a number that is still read."""

NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+])?(?<![A-Za-z\d])"
    r"(?:(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d++)(?:\.\d++)?|\.\d++)(?:[eE][-+]?\d{1,3}(?!\w))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d,.]+)\s*\}\s*\{\s*([\d,.]+)\s*\}|\\[dt]?frac\s*(\d)\s*(\d)(?!\d)")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_NOISE = re.compile(r"\\[!,;:]|\\ |\\left|\\right|\^\s*\{?\s*\\circ\s*\}?|[$€£¥%°~]|\\(?=[$%])")
_HEDGE = re.compile(
    r"\b(?:not|isn't|n't|or|either|neither|nor|between|except|unless|than|least|most|unknown|hundred|thousand|million|"
    r"billion|trillion|dozen|half)\b",
    re.I,
)
_UNITS = (
    "kg|g|mg|lb|lbs|oz|km|m|cm|mm|ft|in|mi|s|sec|min|h|hr|hrs|l|L|ml|mL|mph|kph|am|pm|AM|PM|st|nd|rd|th|A|C|F|K|N|J|W|V"
)
_GLUED = re.compile(rf"(?!(?:{_UNITS})\b)[A-Za-z]")
_ALLOWED_AROUND = re.compile(r"[^\d+*/^=×÷·<>≤≥±|\\{}\[\]!_]*")
_PROSE = re.compile(r"\d[^A-Za-z]*(?<![A-Za-z])[A-Za-z]{2,}")  # "5, as 3 + 3 = 6" does not say 6
_VARIABLE = re.compile(rf"(?<![A-Za-z'])(?!(?:a|{_UNITS})\b)[A-Za-z](?![A-Za-z'])")


def single_number(text: str) -> Fraction | None:
    """The one number an answer consists of, or None."""
    left, _, text = _plain_text(text).rpartition("=")
    if len(text) > 2 * MAX_NUMBER or _PROSE.search(left):
        return None
    found = list(NUMBER.finditer(text))
    if len(found) == 2 and text[found[0].end() : found[1].start()].strip() == "/":
        value = _quotient(_value(found[0].group()), _value(found[1].group()))
    elif len(found) == 1:
        value = _value(found[0].group())
    else:
        return None
    return value if _is_clear(text[: found[0].start()], text[found[-1].end() :]) else None


def same_number(gold: Fraction, answer: Fraction, tolerance: float = DEFAULT_TOLERANCE) -> bool:
    """Integers: equality. Other golds: |answer - gold| <= tolerance * |gold|, in exact arithmetic."""
    if gold.denominator == 1:
        return gold == answer
    return abs(answer - gold) <= Fraction(str(tolerance)) * abs(gold)


def _plain_text(text: str) -> str:
    text = text.replace("\u2212", "-").replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    text = _TEXT.sub(r" \1 ", text)
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", text)
    text = _NOISE.sub("", text)
    return re.sub(r"-\s+(?=\d)", "-", text.strip(), count=1) if text.strip().startswith("-") else text


def _is_clear(before: str, after: str) -> bool:
    around = before + " " + after
    if _GLUED.match(after) or _HEDGE.search(around) or _VARIABLE.search(around):
        return False
    return bool(_ALLOWED_AROUND.fullmatch(around)) and not re.search(r"(?:^|\s)[-\u2013\u2014](?:\s|$)", around)


def _value(number: str) -> Fraction | None:
    return Fraction(number.replace(",", "")) if len(number) <= MAX_NUMBER else None


def _quotient(numerator: Fraction | None, denominator: Fraction | None) -> Fraction | None:
    return None if numerator is None or not denominator else numerator / denominator
