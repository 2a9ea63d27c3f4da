r"""The outer shape of a mathematical answer: relation, list, set, tuple, interval, union, ratio, or one expression.

Only what stands outside all brackets is split; the pieces are left to `numeric.py` and math-verify. Relations, order
and brackets are part of an answer: `(1,2)` is no `\{1,2\}`, and `3x=6` is no 6. All texts here are typeset.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .words import is_denied, leaves_value

_TOKEN = re.compile(r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\[A-Za-z]+|\\.|.", re.S)
_OPENING = frozenset(("(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"))
_RELATION = re.compile(
    r"\\(?:ne|le|ge|in|notin|approx|cong|equiv|subseteq|subset|to|Rightarrow|propto)(?![A-Za-z])|[<>=]"
)
_SEPARATOR = re.compile(
    r"[,;，；]|\\text\s*\{\s*,?\s*(?:and|or|und|oder|et|ou|y|o)\s*,?\s*\}|(?<=[\s\d)}])(?:and|or)(?=[\s\\({\d-])|\\q?quad"
)
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_BAR = re.compile(r"\||:")


def outermost(text: str) -> Iterator[int]:
    """Where tokens start that stand outside all brackets and environments."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSING or token.startswith("\\end"):
            depth = max(0, depth - 1)
        elif token in _OPENING or token.startswith("\\begin"):
            depth += 1
        elif depth == 0:
            yield match.start()


def split(text: str, separator: re.Pattern[str], *, thousands: bool = False) -> tuple[list[str], list[str]]:
    """Pieces and separators of `text` where `separator` matches outside all brackets.

    `thousands`: the commas of 1,234,567 separate nothing.
    """
    outside = set(outermost(text))
    if thousands:
        outside -= {place for number in _THOUSANDS.finditer(text) for place in range(*number.span())}
    pieces, found, start = [], [], 0
    for match in separator.finditer(text):
        if match.start() in outside:
            pieces.append(text[start : match.start()].strip())
            found.append(match[0].strip())
            start = match.end()
    return [*pieces, text[start:].strip()], found


@dataclass(frozen=True)
class Relation:
    """a op b op c; one part and no operator for anything else."""

    parts: tuple[str, ...]
    operators: tuple[str, ...]


def relation(text: str) -> Relation:
    """The sides of a chain of relations."""
    pieces, operators = split(text, _RELATION)
    return Relation(tuple(pieces), tuple(operators))


# --- names -----------------------------------------------------------------------------------------------------------

_GREEK = (
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau"
    r"|upsilon|(?:var)?phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|ell|hbar)(?![A-Za-z])"
)
_ACCENT = r"\\(?:vec|hat|bar|tilde|d?dot|overline|math(?:cal|bb)|over\w+arrow|widehat)\s*\{[^{}]*\}"
_SYMBOL = rf"(?:{_GREEK}|[A-Za-z]|{_ACCENT})"
_INDEX = (
    r"(?:\s*_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w+))?'*"
    r"(?:\s*\^\s*(?:\{\s*(?:\(\w+\)|-1|\*|\\prime)\s*\}|\*|\\prime))?'*"
)
_NAME = re.compile(
    rf"(?:\\lim\s*_\s*\{{[^{{}}]*\}}\s*)?(?:(?:m\s*)?\\(?:angle|triangle|measuredangle|operatorname\*?|max|min|sup|inf|deg|det|dim)(?![A-Za-z])\s*)?(?:[A-Z]{{2,5}}|{_SYMBOL}{_INDEX})"
    rf"(?:\s*\([^()]*(?:\([^()]*\)[^()]*)*\)|\s*\[[^\[\]]*\])?"
    rf"|\|\s*(?:\\overline\s*\{{)?[A-Z]{{1,2}}\}}?(?:\s*\\(?:cap|cup|setminus|times)\s*[A-Z])*\s*\||\[[A-Z]{{3,5}}\]|\\(?:gcd|lcm|min|max|det)\s*\([^()]*\)"
    rf"|\(\s*{_SYMBOL}{_INDEX}(?:\s*,\s*{_SYMBOL}{_INDEX})+\s*\)"
)
_TERM = re.compile("[+-]")
_VALUE_OF = re.compile(r"[A-Za-z]'?\s*\([^()A-Za-z\\]+\)")  # f(1) + f(2)
_WORDS = re.compile(r"[^\W\d_][^\W\d_'.-]*(?:[\s'-]+[^\W\d_][^\W\d_'.-]*)*\s*[:.]?")
_COMPUTED = re.compile(
    r"\b(?:twice|half|double|triple|times|plus|minus|squared|cubed|divided|sin|cos|tan|log|ln|exp|sqrt|pi)\b"
    r"|(?<![^\W\d_'])[b-z](?![^\W\d_'])"
)
_SHORT_WORDS = frozenset(
    ("ans", "sum", "max", "min", "gcd", "lcm", "age", "tax", "fee", "net", "avg", "day", "men", "pay")
)


SUM_OF_NAMES = re.compile(r"(?:[^\W\d_]{2,}\W\s*)?[A-Za-z](?:\s*[+-]?\s*[A-Za-z])+")
"""The m + n of m + n = 25 + 88 = 113, which says what it comes to; m + n = 113 is an equation."""


def is_name(text: str) -> bool:
    """Whether a side of an equation only names what the other side is: a symbol, `f(2)`, `AB`, words."""
    if not text.strip():
        return False
    plain = re.sub(r"\\text\s*\{([^{}\\]*)\}(?!\s*\()", r"\1 ", text).strip()
    if all(_VALUE_OF.fullmatch(term) for term in split(plain, _TERM)[0]):
        return True
    if _NAME.fullmatch(plain) or _NAME.fullmatch(re.sub(r"\\text\s*\{[^{}\\]*\}", "", text).strip()):
        return True
    words = plain.split()
    is_text = plain != text.strip() or any(len(word) >= 4 or word in _SHORT_WORDS for word in words)
    is_words = is_text and bool(_WORDS.fullmatch(plain)) and not _COMPUTED.search(plain)
    return is_words and not is_denied(plain) and leaves_value(plain + " ", "")


# --- shapes ----------------------------------------------------------------------------------------------------------

Kind = Literal["value", "list", "tuple", "relation", "union", "ratio"]


@dataclass(frozen=True)
class Shape:
    """One level of an answer's structure."""

    kind: Kind
    text: str
    parts: tuple["Shape", ...] = ()
    marks: tuple[str, ...] = ()
    """The operators of a relation, the brackets of a tuple, the separators of a list."""


def shape(text: str) -> Shape:
    """The structure of a typeset answer. A list or set of one is that one."""
    text = _REALS.sub(r"\\mathbb{R}", _bare(text))
    pieces, separators = split(text, _SEPARATOR, thousands=True)
    pieces = [piece for piece in pieces if piece]
    if len(pieces) > 1:
        return _list(text, pieces, tuple(re.sub(r"\\text|[{}\s]", "", mark) for mark in separators))
    text = pieces[0] if pieces else text
    for reading in (_set, _tuple, _union, _related, _ratio):
        found = reading(text)
        if found is not None:
            return found
    return _alternatives(text) or Shape("value", text)


_REALS = re.compile(r"(?:\\text\s*\{)?\s*all\s+real(?:s|\s+numbers|\s+values)?\s*\}?", re.I)


def _bare(text: str) -> str:
    text = text.strip()
    text = text.removesuffix(".") if not text.endswith("..") else text
    while text.startswith("{") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text.strip()


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last token."""
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if depth <= 0:
            return match.end() == len(text)
    return False


def _list(text: str, pieces: list[str], separators: tuple[str, ...]) -> Shape:
    parts = [part for piece in pieces for part in _spread(shape(piece))]
    return Shape("list", text, tuple(parts), separators)


def _spread(found: Shape) -> list[Shape]:
    r"""The two values of \pm, and x = \pm 5 as x = 5, x = -5."""
    if found.kind == "list" and found.marks == ("\\pm",):
        return list(found.parts)
    if found.kind == "relation" and found.marks == ("=",) and found.parts[1].marks == ("\\pm",):
        name, values = found.parts
        return [replace(found, text=f"{name.text}={part.text}", parts=(name, part)) for part in values.parts]
    return [found]


def _set(text: str) -> Shape | None:
    if not (text.startswith(r"\{") and text.endswith(r"\}") and _closes_at_end(text)):
        return None
    inner = text[2:-2].strip()
    before, bar, condition = _conditional(inner)
    if bar:
        return shape(condition) if is_name(re.sub(r"\\in\s*\\mathbb\{R\}$", "", before).strip()) else None
    found = shape(inner)
    return replace(found, text=text, marks=()) if found.kind == "list" else found


def _conditional(inner: str) -> tuple[str, str, str]:
    pieces, bars = split(inner, _BAR)
    return (pieces[0], bars[0], inner[len(pieces[0]) + 1 :].lstrip(" |:")) if len(bars) == 1 else (inner, "", "")


def _tuple(text: str) -> Shape | None:
    opening = next((mark for mark in ("(", "[", "]", r"\langle") if text.startswith(mark)), None)
    closing = next((mark for mark in (")", "]", "[", r"\rangle") if text.endswith(mark)), None)
    if opening is None or closing is None or len(text) < 3 or not (opening == "]" or _closes_at_end(text)):
        return None
    inner = text[len(opening) : len(text) - len(closing)].strip()
    pieces, _ = split(inner, re.compile("[,;]"))
    if len(pieces) == 1:
        return shape(inner) if (opening, closing) == ("(", ")") and not re.search(r"[+-]", inner) else None
    marks = (opening.replace(r"\langle", "("), closing.replace(r"\rangle", ")"))
    return Shape("tuple", text, tuple(map(shape, pieces)), marks)


def _union(text: str) -> Shape | None:
    pieces, unions = split(text, _UNION)
    return Shape("union", text, tuple(map(shape, pieces))) if unions else None


def _related(text: str) -> Shape | None:
    found = relation(text)
    if not found.operators:
        return None
    return Shape("relation", text, tuple(_side(part) for part in found.parts), found.operators)


def _side(text: str) -> Shape:
    return shape(text) if text and not is_name(text) else Shape("value", text)


def _ratio(text: str) -> Shape | None:
    pieces, colons = split(text, re.compile(":"))
    return Shape("ratio", text, tuple(map(shape, pieces))) if colons and all(pieces) else None


def _alternatives(text: str) -> Shape | None:
    r"""1 \pm 2 is 1 + 2 and 1 - 2."""
    if not re.search(r"\\[pm]m(?![A-Za-z])|\\mp(?![A-Za-z])", text):
        return None
    upper = re.sub(r"\\pm(?![A-Za-z])", "+", re.sub(r"\\mp(?![A-Za-z])", "-", text))
    lower = re.sub(r"\\pm(?![A-Za-z])", "-", re.sub(r"\\mp(?![A-Za-z])", "+", text))
    return Shape(
        "list", text, (Shape("value", upper.strip().removeprefix("+").strip()), Shape("value", lower)), ("\\pm",)
    )
