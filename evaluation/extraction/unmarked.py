"""The value that a completion without a mark comes to: bold, or the last one in its last line that has any.

A value counts only as a whole: with the equation it closes, the list it ends and the sign before it. A clause that
denies it, or a later remark that takes it back, leaves no answer.
"""

import re

from ..reading.numeric import VALUE, read_number
from ..reading.shapes import is_name
from ..reading.typography import FORMULA, formula_in, typeset, without_emphasis
from ..reading.words import is_denied, leaves_value
from .doubt import takes_back
from .sentences import Answer, clean

_TAIL = 4_096  # characters in which the last value is looked for
_MAX_LIST = 50
_SHORT = 60  # characters of a bare answer in words
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_BOLD = re.compile(
    r"(?<![0-9A-Za-z*\\])\*\*(?=[^\s*])([^*\n]+)(?<=[^\s*])\*\*|(?<![\w\\])__(?=[^\s_])([^_\n]+)__(?!\w)"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:[-+*/^<>±_|!{\[]|(?<=[A-Za-z\d])\(|\\(?!text|\$|approx)[A-Za-z]+|\bnot)\s*$|[A-Za-z\\]$"
)
_OPERATOR_AFTER = re.compile(
    r"\s*(?:[-+*=<>±_]|\^(?!\s*\{?\s*\\circ)|!(?!\s*$)|/(?!\s*[A-Za-z]{2})|\\(?!text|%|\$|\^)[A-Za-z]+)(?!\d*-?(?:year|day|hour|minute|month|week|page|mile)s?\b)|[({\[]"
)
_INDEX_BEFORE = re.compile(r"[\^_]\s*\{?\s*$")
_LIST_BEFORE = re.compile(
    r"\d[^\s,;]{0,20}\s*(?:(?:hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|ft|yards?|pounds?|lbs?|stone|"
    r"dollars?|euros?|kg|km|m|meters?|metres?|degrees)\s+|(?:[A-Za-z]+\s+)?(?:,?\s*\b(?:or|and|to|through|until|out\s+of|of\s+the)\b|[,;–—:]|(?<=\d)-|(?<=\d\s)in(?=\s))\s*"
    r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?)\W?$"
)
_LIST_ITEM = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?[-+]?[\d.,]*$")
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s*$", re.I)
_SUM_BEFORE = re.compile(
    r"(?:[\d\s+*/^()x$|!-]|[.,](?=\d)|\\(?:times|cdot|frac|sqrt|pm|\$)|[{}]|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))+=\s*(?:\\\$)?$"
)
_CLAUSE = re.compile(r"[.;:!?,](?=\s)|\n|=|\bso\b|\btherefore\b|\bthus\b|\bhence\b", re.I)
_DOUBT = re.compile(
    r"\b(?:not\s+(?:sure|certain|right|correct)|unsure|uncertain|wrong|incorrect|mistaken?|error|guess\w*|unknown|"
    r"(?:don['’]t|do\s+not|cannot|can['’]t)\s+(?:know|solve|find|determine|tell))\b",
    re.I,
)
_SUPPOSED = re.compile(r"(?:^|[.!?:;]\s+)\W*(?:let|suppose|assume|assuming|consider|given|if|when|say)\b[^.!?]*$", re.I)
_UNFINISHED = re.compile(
    r"(?:\b(?:then|so|and|therefore|thus|hence|because|but|then\s+we)|,)\W*$|\b(?:is|are|was|were|equals?|the|an?|of|to|by|"
    r"with|for|from|in|per|at|that|which|if|when|we|he|she|they|it|has|have|had|will|would|pays?|gets?|costs?|makes?|gives?)"
    r"\s*[$=(:]*\s*$|(?<=[a-z])\s+[$=(]+\s*$",
    re.I,
)
_SENTENCE = re.compile(r"[.!?;]?\s*$|(?<!\bsq)(?<!\bcu)[.!?;](?=\s)")
_OPENING = re.compile(
    r"(?:(?:so|thus|hence|then|therefore|finally|now|and|consequently|also|donc|also)\b,?|[^\W\d_]{4,},)\s+(?=\S)", re.I
)
_ROLE = re.compile(r"\s*(?:A|Assistant|Response|Output|Solution|Result)\s*:\s*(?=\S)")
_BULLET = re.compile(r"^[ \t]*(?:[•➜→▶✓✔✅☑►]+|[-*+](?=\s+[^\W\d]))\s*", re.M)
_JOINED = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s*and|,\s*or)\s*")


def last_value(text: str, *, formulas: bool) -> Answer | None:
    """The value of a completion; with `formulas`, a formula or a word or two may be one."""
    text = _BULLET.sub("", text)
    if role := _ROLE.match(text):
        text = text[role.end() :]
    whole = without_emphasis(text).strip()
    if opening := _OPENING.match(whole):
        whole = whole[opening.end() :]
    if whole.endswith("!") and _WORD.match(whole):
        whole = whole.rstrip("!")  # prose, and no factorial
    if _is_bare(whole) or (formulas and _is_word(whole)):
        return Answer(clean(whole), "whole", closed=False)
    tail = text[-_TAIL:]
    lines = tail.rstrip().split("\n")
    if len(text) > len(tail):
        lines = lines[1:]
    place = next((index for index in range(len(lines) - 1, -1, -1) if _has_value(lines[index], formulas)), None)
    if formulas and (spoken := _bold_words(tail.rstrip().rpartition("\n")[2])):
        return spoken
    if place is None:
        return None
    after = "\n".join(lines[place + 1 :])
    if _DOUBT.search(after) or takes_back(after):
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


_BOLD_END = re.compile(r"(?<=[^\W\d_][ ,:])\s*\*\*([^\W\d_][^*\n\d\\$]{0,58}?)[.!]?\*\*[.!]?\s*$")


def _bold_words(line: str) -> Answer | None:
    """A word or three in bold that end the last line: "So it is a **Friday**."."""
    found = _BOLD_END.search(line)
    if found is None or len(found[1].split()) > 3:
        return None
    before = _clause(line[: found.start() + 1])
    if is_denied(before) or re.search(r"\b(?:before|after|than|except|from|like|opposite|of)\W*$", before):
        return None
    return Answer(clean(found[1]), "bold", closed=False)


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
    negated = _SIGN_WORD.search(text[: number.start()])
    start, end = negated.start() if negated else number.start(), number.end() - number[0].endswith(".")
    before, after = text[:start], text[end:]
    own, rest = _own_sentence(after)
    is_numbering = not before.strip() and rest.endswith("?")  # 3. How many are left?
    if is_numbering or _SUPPOSED.search(before) or _UNFINISHED.search(after) or _is_doubted(rest):
        return None
    if number[0][0] in "+-" and re.search(r"[\d)]\s*$", before):
        return None
    if _OPERATOR_BEFORE.search(before) or _OPERATOR_AFTER.match(after):
        return None
    first = _list_start(before)
    if first < start:
        return Answer(_bracketed(text, first, end, own), "last number", closed=False), -len(after)
    clause = _clause(before)
    if is_denied(clause) or not leaves_value(clause, own):
        return None
    summed = _SUM_BEFORE.search(before[-300:])
    if summed is not None and summed[0].strip(" =$\\"):
        start = max(0, len(before) - 300) + summed.start()
    return Answer((text[start:end] + own).strip(), "last number", closed=False), -len(after)


def _own_sentence(after: str) -> tuple[str, str]:
    """The rest of a value's own sentence, and what follows from its full stop on."""
    stop = _SENTENCE.search(after)
    return (after[: stop.start()], after[stop.start() :]) if stop else (after, "")


def _is_doubted(rest: str) -> bool:
    return rest.startswith("?") or takes_back(rest) or _DOUBT.search(rest) is not None


def _list_start(before: str) -> int:
    """Where the list starts that ends behind `before`; its end when there is none."""
    start = len(before)
    for _ in range(_MAX_LIST):
        listed = _LIST_BEFORE.search(before[max(0, start - 60) : start])
        if listed is None:
            break
        start = max(0, start - 60) + listed.start()
        first = _LIST_ITEM.search(before[max(0, start - 60) : start])
        start -= len(first[0]) if first else 0
    return start


def _bracketed(text: str, start: int, end: int, own: str) -> str:
    """A list, with the brackets that make it a tuple or an interval."""
    opening, closing = re.search(r"(?<![^\W_])(?:\\\{|[(\[])\s*$", text[:start]), re.match(r"\s*(?:\\\}|[)\]])", own)
    if opening and closing:
        return text[opening.start() : end] + closing[0]
    return (text[start:end] + own).strip()


def _clause(before: str) -> str:
    """The clause that leads to a value."""
    ends = [match.end() for match in _CLAUSE.finditer(before)]
    return before[ends[-1] :] if ends else before
