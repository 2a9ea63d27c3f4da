"""The value that a completion without a mark comes to: bold, or the last one in its last line that has any.

A value counts only as a whole: with the equation it closes, the list it ends and the sign before it. A clause that
denies it, or a later remark that takes it back, leaves no answer.
"""

import re

from ..reading.numeric import VALUE, read_number
from ..reading.shapes import is_name
from ..reading.typography import FORMULA, formula_in, typeset, without_emphasis
from ..reading.words import is_denied, leaves_value
from .marks import RETRACTED, Answer, clean

_TAIL = 4_096  # characters in which the last value is looked for
_SHORT = 60  # characters of a bare answer in words
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_BOLD = re.compile(
    r"(?<![0-9A-Za-z*\\])\*\*(?=[^\s*])([^*\n]+)(?<=[^\s*])\*\*|(?<![\w\\])__(?=[^\s_])([^_\n]+)__(?!\w)"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:[-+*/^<>±_|!{\[]|(?<=[A-Za-z\d])\(|\\(?!text|\$|approx)[A-Za-z]+|\bnot)\s*$|[A-Za-z\\]$"
)
_OPERATOR_AFTER = re.compile(
    r"\s*(?:[-+*^=<>±_]|!(?!\s*$)|/(?!\s*[A-Za-z]{2})|\\(?!text|%|\$|\^)[A-Za-z]+)(?!\d*-?(?:year|day|hour|minute|month|week|page|mile)s?\b)|[({\[]"
)
_INDEX_BEFORE = re.compile(r"[\^_]\s*\{?\s*$")
_LIST_BEFORE = re.compile(
    r"\d[^\s,;]{0,20}\s*(?:[A-Za-z]+\s+)?(?:,?\s*\b(?:or|and|to|through|until|out\s+of|of\s+the)\b|[,;–—:]|(?<=\d)-)\s*\W?$"
)
_SUM_BEFORE = re.compile(
    r"(?:[\d\s+*/^().,x$|!-]|\\(?:times|cdot|frac|sqrt|pm|\$)|[{}]|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+=\s*(?:\\\$)?$"
)
_CLAUSE = re.compile(r"[.;:!?,](?=\s)|\n|=|\bso\b|\btherefore\b|\bthus\b|\bhence\b", re.I)
_DOUBT = re.compile(
    r"\b(?:not\s+(?:sure|certain|right|correct)|unsure|uncertain|wrong|incorrect|mistaken?|error|guess\w*|unknown|"
    r"(?:don['’]t|do\s+not|cannot|can['’]t)\s+(?:know|solve|find|determine|tell))\b",
    re.I,
)
_SUPPOSED = re.compile(r"(?:^|[.!?:;]\s+)\W*(?:let|suppose|assume|assuming|consider|given|if|when|say)\b[^.!?]*$", re.I)
_UNFINISHED = re.compile(r"(?:\b(?:then|so|and|therefore|thus|hence|because|but|then\s+we)|,|\?)\W*$", re.I)
_ROLE = re.compile(r"\s*(?:A|Assistant|Response|Output|Solution|Result)\s*:\s*(?=\S)")
_BULLET = re.compile(r"^[ \t]*(?:[•➜→▶✓✔✅☑►]+|[-*+](?=\s+[^\W\d]))\s*", re.M)
_JOINED = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s*and|,\s*or)\s*")


def last_value(text: str, *, formulas: bool) -> Answer | None:
    """The value of a completion; with `formulas`, a formula or a word or two may be one."""
    text = _BULLET.sub("", text)
    if role := _ROLE.match(text):
        text = text[role.end() :]
    whole = without_emphasis(text).strip()
    if whole.endswith("!") and _WORD.match(whole):
        whole = whole.rstrip("!")  # prose, and no factorial
    if _is_bare(whole) or (formulas and _is_word(whole)):
        return Answer(clean(whole), "whole", closed=False)
    tail = text[-_TAIL:]
    lines = tail.rstrip().split("\n")
    if len(text) > len(tail):
        lines = lines[1:]
    place = next((index for index in range(len(lines) - 1, -1, -1) if _has_value(lines[index], formulas)), None)
    if place is None:
        return None
    after = "\n".join(lines[place + 1 :])
    if _DOUBT.search(after) or RETRACTED.search(after):
        return None
    return _bold(lines[place]) or _last(without_emphasis(lines[place]), formulas)


def _is_bare(whole: str) -> bool:
    """One line with something numeric or mathematical and no prose around it."""
    words = _WORD.findall(re.sub(r"\\(?:text|mathrm)\{[^{}]*\}", "", whole[:400]))
    if {"is", "are", "equals", "gives", "makes"} & set(words):
        return False
    return bool(whole) and "\n" not in whole and len(words) <= 1 and bool(re.search(r"[\d\\^=]|[^\x00-\x7f]", whole))


def _is_word(whole: str) -> bool:
    return bool(whole) and len(whole) <= _SHORT and not re.search(r"\d", whole) and len(whole.split()) <= 2


def _has_value(line: str, formulas: bool) -> bool:
    return bool(re.search(r"\d|[¼-¾⅐-⅞]", line)) or (formulas and FORMULA.search(line) is not None)


def _bold(line: str) -> Answer | None:
    """The only bold value of a line, when it is no part of a sum."""
    values = [(match, match[1] or match[2]) for match in _BOLD.finditer(line)]
    values = [(match, clean(inner)) for match, inner in values if read_number(clean(inner)) is not None]
    if len(values) != 1:
        return None
    match, _ = values[0]
    before, after = typeset(line[: match.start()]), typeset(line[match.end() :])
    if re.match(r"\s*[-+*/=^]|\s*\\", after) or is_denied(_clause(before)) or not leaves_value(_clause(before), after):
        return None
    return _last(without_emphasis(line[: match.end()]), formulas=False)


def _last(line: str, formulas: bool) -> Answer | None:
    formula = _last_formula(line) if formulas else None
    number = _last_number(line)
    if formula is not None and (number is None or formula[1] > number[1]):
        return formula[0]
    return number[0] if number is not None else None


def _last_formula(line: str) -> tuple[Answer, int] | None:
    """The last formula, with those it is joined to, and the characters that follow it counted negatively."""
    found = list(FORMULA.finditer(line))
    named = [match for match in found if not is_name(typeset(formula_in(match)))]
    if not found or (not named and re.search(r"\d", FORMULA.sub("", line))):
        return None
    found = found[: found.index(named[-1]) + 1] if named else found
    parts = [found[-1]]
    while len(found) > len(parts) and _JOINED.fullmatch(line[found[-len(parts) - 1].end() : parts[0].start()]):
        parts.insert(0, found[-len(parts) - 1])
    before, after = line[: parts[0].start()], line[parts[-1].end() :]
    text = line[parts[0].start() : parts[-1].end()]
    if is_denied(_clause(before)) or not leaves_value(_clause(before), after):
        return None
    if _SUPPOSED.search(before) or _UNFINISHED.search(after):
        return None
    return Answer(clean(text) if len(parts) > 1 else formula_in(parts[0]), "formula", closed=False), -len(after)


def _last_number(line: str) -> tuple[Answer, int] | None:
    """The last number, with the sum it comes from or the list it ends, and where it stands counted from the end."""
    text = typeset(line)
    found = [match for match in VALUE.finditer(text) if not _INDEX_BEFORE.search(text, 0, match.start())]
    if not found:
        return None
    number = found[-1]
    before, after = text[: number.start()], text[number.end() :]
    if _SUPPOSED.search(before) or _UNFINISHED.search(after):
        return None
    if number[0][0] in "+-" and re.search(r"[\d)]\s*$", before):
        return None
    if _OPERATOR_BEFORE.search(before) or _OPERATOR_AFTER.match(after):
        return None
    listed = _LIST_BEFORE.search(before[-60:])
    clause = _clause(before)
    if listed is None and (is_denied(clause) or not leaves_value(clause, after)):
        return None
    start = number.start()
    summed = _SUM_BEFORE.search(before[-300:])
    if listed is not None:
        start = max(0, start - 60) + listed.start() if len(before) > 60 else listed.start()
    elif summed is not None and summed[0].strip(" =$\\"):
        start = max(0, len(before) - 300) + summed.start()
    end = re.search(r"[.!?;]?\s*$|[.!?;](?=\s)", after)
    answer = text[start : number.end()] + (after[: end.start()] if end else after)
    return Answer(answer.strip(), "last number", closed=False), -len(after)


def _clause(before: str) -> str:
    """The clause that leads to a value."""
    ends = [match.end() for match in _CLAUSE.finditer(before)]
    return before[ends[-1] :] if ends else before
