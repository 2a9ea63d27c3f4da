"""An answer as written: its text without what stands around it, and the first sentence behind a mark.

A sentence ends at its full stop, and an answer before its reasons.
"""

import re
from dataclasses import dataclass, replace

from .doubt import is_rejected, takes_back, takes_itself_back


@dataclass(frozen=True)
class Answer:
    """A final answer as written."""

    text: str
    rule: str
    closed: bool = True
    """The answer's end is seen, so that a completion cut off later would not change it."""
    end: int = 0
    """Where what follows a box or `####` starts."""


_FENCED = re.compile(r"\A\s*```\w*\n((?:(?!```).)*)\n\s*```\s*\Z", re.S)
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ('"', '"'), ("\u201c", "\u201d"), ("「", "」"))


def clean(text: str) -> str:
    """Without white space, markdown emphasis, delimiters, quotes and the full stop around an answer."""
    previous = None
    while previous != text:
        previous = text
        text = _FENCED.sub(r"\1", text).strip().strip("*`").strip()
        text = text.removesuffix(".") if not text.endswith("..") else text
        text = text.removesuffix("。")
        text = _unwrap(text)
    return text


def _unwrap(text: str) -> str:
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            return inner
    return text


_OPENERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_SENTENCE_END = re.compile(
    r"(?<!approx)(?<!\bca)(?<!\bcf)(?<!\bNo)(?<!\bRs)(?<=[a-z]{2})[.!?](?=\s+[\d])|[.!?](?=\s+[A-Z(\\$*]|[\s*$)\"']*$|[\s*$)\"']*\n)|(?<=[\d)}\]$%*\"'])[.!?](?=\s)|[。！？।]|\n"
)
_REASON = re.compile(
    r"[,;]?\s+(?:because|since|as(?!\s+(?:long|many|much|far|well)\b)|which|due\s+to|given\s+that|where|weil|da|porque|"
    r"parce\s+que|car|потому|так\s+как)\b|[,;]\s*so\b|[,，]?\s*因为",
    re.I,
)
_CONTRAST = re.compile(r"(?<=[\w)}$%])[,;]?\s+(?:rather\s+than|instead\s+of|as\s+opposed\s+to|(?:and\s+)?not)\s", re.I)
_FILLER = re.compile(
    r"(?:[,\s]*\b(?:therefore|thus|then|hence|so|simply|just|exactly|precisely|equal\s+to|equals|given\s+by|indeed|also|"
    r"clearly|now|obviously|finally|as\s+follows|(?:obtained|calculated|found|given)\s+(?:as|to\s+be)|the\s+(?:number|value|letter)|donc|por\s+lo\s+tanto|portanto|quindi)\b"
    r"\s*[,:]?)+\s*(?=\S)",
    re.I,
)


def sentence(rest: str, rule: str) -> Answer:
    """The first formula or sentence of `rest`, without its reasons; empty when what follows takes it back."""
    body = re.sub(r"^\s*[=~-]{3,}\s*\n", "", rest.lstrip(" \t\r\n:：*_#>")).lstrip()
    if filler := _FILLER.match(body):
        body = body[filler.end() :].lstrip(" \t\r\n*_")
    answer, cut, end = _first(body, rule)
    withdrawn = takes_itself_back(body[:cut]) or is_rejected(body[cut:end]) or takes_back(body[end:])
    return replace(answer, text="") if withdrawn else answer


def _first(body: str, rule: str) -> tuple[Answer, int, int]:
    """The answer, where its reasons start, and where the sentence ends."""
    for opening, closing in _OPENERS.items():
        end = body.find(closing, len(opening)) if body.startswith(opening) else -1
        if end >= 0 and _SENTENCE_END.match(body[end + len(closing) :].lstrip(" *_") or "\n"):
            return Answer(clean(body[len(opening) : end]), rule), end, end
    stop = _SENTENCE_END.search(body)
    end = stop.start() if stop else len(body)
    cuts = _REASON.search(body, 1, end), _CONTRAST.search(body, 0, end)
    cut = min((each.start() for each in cuts if each), default=end)
    is_question = stop is not None and stop[0] in "?？"
    text = "" if is_question else clean(body[:cut])
    return Answer(text, rule, closed=stop is not None or cut < end), cut, end
