r"""Finds the final answer in a completion, by ordered rules from the most specific to the most liberal.

Text up to the last `</think>` is reasoning and is ignored. Then the first rule that applies decides:

1. `tag`     the last `<answer>...</answer>`
2. `boxed`   the last `\boxed{...}`; boxes joined by "and", "or" or commas are one answer with several parts
3. `hash`    the rest of the line after the last `####` (headings such as `#### Step 2` are passed over)
4. `final`   the sentence after the last "final answer is" or "final answer:"
5. `phrase`  the sentence after the last "answer is" or "answer:"
6. by kind   choice: a leading "B)" or the only option named in the last line; numeric and math: the whole completion
             when it is no prose, the last formula (math), or the last number that stands alone; exact: the whole

A marker with nothing behind it is no answer; later rules are not tried, because guessing would reward a broken format.
All scans are linear in the completion's length.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .numeric import NUMBER

MAX_COMPLETION = 65_536
"""Characters looked at, from the end."""

_TAIL = 4_096  # characters in which a liberal rule looks for the last number or formula


@dataclass(frozen=True)
class Answer:
    """A final answer as written."""

    text: str
    rule: str
    closed: bool = True
    """The answer's end is seen, so that a completion cut off later would not change it."""


def extract_answer(completion: str, kind: str) -> Answer | None:
    """The final answer of a completion, or None. `kind` is math, numeric, choice or exact."""
    text = final_part(completion)
    if text is None:
        return None
    answer = explicit_answer(text)
    for rule in (_final_phrase, _answer_phrase, _LIBERAL[kind]):
        if answer is not None:
            break
        answer = rule(text)
    return answer if answer is not None and answer.text else None


def explicit_answer(text: str) -> Answer | None:
    """The answer marked by a tag, a box or `####`; None without such a marker."""
    for rule in (_tagged, _boxed, _hashed):
        answer = rule(text)
        if answer is not None:
            return answer
    return None


def final_part(completion: str) -> str | None:
    """The end of the completion without the reasoning block; None when reasoning never ended."""
    text = completion[-MAX_COMPLETION:]
    end = text.rfind("</think>")
    if end >= 0:
        return text[end + len("</think>") :]
    return None if "<think>" in completion else text


def clean(text: str) -> str:
    """Without white space, markdown emphasis, math delimiters and the full stop around an answer."""
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip("*`").strip()
        text = text.removesuffix(".") if not text.endswith("..") else text
        text = _unwrap(text)
    return text


_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))


def _unwrap(text: str) -> str:
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            return inner
    return text


# --- explicit markers ------------------------------------------------------------------------------------------------


def _tagged(text: str) -> Answer | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start < 0:
        return None
    return Answer(text[start + len("<answer>") : end].strip(), "tag")


_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}\\]|[{}]")
_JOINED = re.compile(r"[\s$,;.\\()\[\]]*(?:\b(?:and|or)\b|,)[\s$,;.\\()\[\]]*")
_BARE_BOX = re.compile(r"\\boxed\s+([^\s${}]+)")


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, content) of every outermost closed box, in order; one pass over the braces."""
    open_braces: list[tuple[int, int] | None] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token.endswith("{") and token != "\\{":
            open_braces.append((match.start(), match.end()) if len(token) > 1 else None)
        elif token == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None and not any(open_braces):
                yield opened[0], match.end(), text[opened[1] : match.start()].strip()


def _boxed(text: str) -> Answer | None:
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    boxes = list(_boxes(text))
    if not boxes:
        bare = _BARE_BOX.findall(text)
        return Answer(clean(bare[-1]), "boxed", closed=False) if bare else None
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _JOINED.fullmatch(text[box[1] : parts[0][0]]):
            break
        parts.insert(0, box)
    return Answer(", ".join(part[2] for part in parts), "boxed")


_HEADING = re.compile(
    r"\W*(?:step|part|case|solution|final|answer|explanation|conclusion|calculation|summary|approach|problem)\b", re.I
)


def _hashed(text: str) -> Answer | None:
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        rest = text[start + 4 :].lstrip("# \t\r\n")
        line, newline, _ = rest.partition("\n")
        if not _HEADING.match(line):
            return Answer(clean(line), "hash", closed=bool(newline))
        end = start
    return None


# --- phrases ---------------------------------------------------------------------------------------------------------

_FINAL = re.compile(r"\bfinal answer\b[*_\s]{0,4}(?:(?:is|are)\b\s*:?|[:=]|\n)", re.I)
_ANSWER = re.compile(
    r"\banswers?\b(?:[*_\s]{0,4}[:=]|(?:[^\n.:=]{0,60}?\s)?(?:is|are|would be|should be|must be)\b\s*:?)", re.I
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(\\$]|[\s*$)]*$|[\s*$)]*\n)|\n")
_REASON = re.compile(r",?\s+(?:because|since)\b", re.I)
_OPENERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}


def _last_after(pattern: re.Pattern[str], text: str, rule: str) -> Answer | None:
    match = _last(pattern, text)
    return None if match is None else _sentence(text[match.end() :], rule)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _sentence(rest: str, rule: str) -> Answer:
    """The first formula or sentence of `rest`."""
    body = rest.lstrip(" \t\r\n:*_")
    for opening, closing in _OPENERS.items():
        end = body.find(closing, len(opening)) if body.startswith(opening) else -1
        if end >= 0 and _SENTENCE_END.match(body[end + len(closing) :].lstrip(" *_") or "\n"):
            return Answer(clean(body[len(opening) : end]), rule)
    stop = _SENTENCE_END.search(body)
    reason = _REASON.search(body, 0, stop.start() if stop else len(body))
    if reason is not None:
        return Answer(clean(body[: reason.start()]), rule)
    return Answer(clean(body[: stop.start()] if stop else body), rule, closed=stop is not None)


def _final_phrase(text: str) -> Answer | None:
    return _last_after(_FINAL, text, "final")


def _answer_phrase(text: str) -> Answer | None:
    return _last_after(_ANSWER, text, "phrase")


# --- liberal rules ---------------------------------------------------------------------------------------------------

_LEADING_OPTION = re.compile(r"\W*(?:[A-Z]|[a-z]\W*$)\W*(?:$|\n)|[\s*(]*[A-Z]\**[).:]")
_NAMED_OPTION = re.compile(r"\(([A-J])\)|\b(?:option|choice)\s+\(?([A-J])\b", re.I)
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\(((?:[^\\]|\\[^)])+)\\\)|\\\[((?:[^\\]|\\[^\]])+)\\\]")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_OPERATOR_BEFORE = re.compile(r"[-+*/^×÷·<>±]\s*$|\\[a-z]+\s*$|\bnot\s+\$?$|[A-Za-z\\{(]$", re.I)
_LIST_BEFORE = re.compile(r"\d\S{0,20}\s*(?:[A-Za-z]+\s+)?(?:,?\s*\b(?:or|and|to)\b|[,;–—])\s*\W?$")
_GLUED_AFTER = re.compile(r"[A-Za-z]?\s*[-+*/^×÷]|[a-z]\b(?<![mgsh°])|\(|\\|\{")


def _choice(text: str) -> Answer | None:
    lines = text.strip().splitlines() or [""]
    if _LEADING_OPTION.match(text):
        return Answer(clean(lines[0]), "leading", closed=len(lines) > 1)
    named = {(a or b).upper() for a, b in _NAMED_OPTION.findall(lines[-1])}
    return Answer(named.pop(), "named", closed=False) if len(named) == 1 else None


def _numeric(text: str) -> Answer | None:
    whole = text.strip()
    return Answer(clean(whole), "whole", closed=False) if _is_bare(whole) else _last_number(text)


def _math(text: str) -> Answer | None:
    whole = text.strip()
    if _is_bare(whole) or (whole and len(whole) <= 60 and not re.search(r"\d", whole) and len(whole.split()) <= 2):
        return Answer(clean(whole), "whole", closed=False)
    formula = _last(_FORMULA, text[-_TAIL:])
    if formula is not None:
        return Answer(next(group for group in formula.groups() if group).strip(), "formula")
    return _last_number(text)


def _is_bare(whole: str) -> bool:
    """One line with something numeric or mathematical and no prose around it."""
    return (
        bool(whole) and "\n" not in whole and len(_WORD.findall(whole[:400])) <= 1 and bool(re.search(r"[\d\\]", whole))
    )


def _last_number(text: str) -> Answer | None:
    """The last number, unless it is part of an expression; with its neighbours when it is one of a list."""
    tail = text[-_TAIL:]
    number = _last(NUMBER, tail)
    if number is None or (number.start() == 0 and len(text) > len(tail)):
        return None
    before = tail[max(0, number.start() - 40) : number.start()]
    if _OPERATOR_BEFORE.search(before) or _GLUED_AFTER.match(tail, number.end()):
        return None
    start = max(0, number.start() - 40) if _LIST_BEFORE.search(before) else number.start()
    return Answer(tail[start : number.end()], "last number", closed=False)


def _exact(text: str) -> Answer | None:
    return Answer(text.strip(), "whole", closed=False)


_LIBERAL: dict[str, Callable[[str], Answer | None]] = {
    "math": _math,
    "numeric": _numeric,
    "choice": _choice,
    "exact": _exact,
}
