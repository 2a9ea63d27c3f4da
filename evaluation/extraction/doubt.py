"""What the text around an answer makes of it: takes it back, rejects it, supposes it, or makes it a term of more."""

import re

_SEEN = 400
"""Characters behind an answer in which it may be taken back."""

_NOT = r"(?:(?:does|did|is|was|ca|could)(?:n['’]t|\s+not)|cannot)"
_IT = r"(?:that|this|it|which|answer)"
_IS = r"(?:['’]s|\s+(?:is|was|seems|looks|must\s+be|can(?:no|['’])t\s+be))"
_WRONG = r"(?:wrong|incorrect|false|not\s+(?:right|correct|the\s+(?:\w+\s+)?answer)|an?\s+(?:mistake|error))"
_RETRACTED = re.compile(
    r"\b(?:wait[,.!\s…—-]+(?!(?:for|until|till|let['’]?s?)\b)(?=\w)|correction:|let\s+me\s+(?:recompute|recalculate|redo|"
    r"reconsider|rethink|start\s+over|try\s+again)\b)"
    r"|\b(?:scratch\s+that|oops|on\s+second\s+thought|(?:i|we)\s+(?:was|were|am)\s+wrong|"
    r"(?:i|we)(?:['’]ve|\s+have)?\s+(?:made\s+an?\s+(?:\w+\s+)?(?:mistake|error)|mis(?:calculated|counted|read))|"
    rf"actually,?\s+(?:no|it|that|the|i)\b|{_IT}{_IS}\s+(?:{_WRONG}|right\b(?<=n['’]t be right))|"
    rf"{_IT}\s+{_NOT}\s+(?:(?:seem|look|sound|feel|be)\s+)?(?:to\s+be\s+)?(?:right|correct|make\s+sense|add\s+up|check\s+out))\b"
    r"|\bno,\s+(?:wait|that|it)\b",
    re.I,
)
_INSTEAD = re.compile(
    r"(?:^|[.!?…]\s*|\n)\W*(?:hm+\W+)?(?:no|actually|sorry)\b,?\s+(?:wait|it|\(?[A-J](?![\w'’])|[-$\\]?\d)",
    re.I,
)
_REJECTED = re.compile(
    r"[\s$)\]}*\\]*,?\s*(?:which\s+|but\s+(?:that|this|it)\s+)?"
    rf"(?:(?:is|was|are|seems|would\s+be)\s*(?:{_WRONG}|impossible|invalid|n['’]t\b|not\b|too\s+\w+)|cannot\b|can['’]t\b)"
)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|unless|suppos\w+|assum\w+|imagine|pretend|say|says|said|thought|guess\w*|believed|"
    r"(?:might|may|could|would|can)\s+(?:\w+\s+)?(?:think|guess|expect|believe|claim|argue|conclude)|"
    r"tempting\s+to\s+\w+|wenn|falls|angenommen|si|supongamos|supposons)"
    r"\s+(?:that\s+|dass\s+|que\s+)?(?:the|my|our|their|this|die|la)\s+(?:\w+\s+){0,2}$",
    re.I,
)
_OPERATOR_BEFORE = re.compile(
    r"(?:(?<![-*])[-+/^±√]|(?<![A-Za-z\d])\d|[\d)}=]\s*(?:[-+/]|(?<!\*)\*)\s*|\\(?:times|cdot|pm|mp|div|sqrt|[dt]?frac\s*\{)\s*)$"
)
_RELATION_BEFORE = re.compile(
    r"(?:[\w})]\s*(?:[<>≤≥≠]|!=)|\b(?:not|never|nor|than|cannot\s+be)\b|n['’]t\b|\\(?:leq?|geq?|neq?|lt|gt|equiv|not))[\s$]*$",
    re.I,
)
_OPERATOR_AFTER = re.compile(
    r"[ \t]*(?:\^(?!\s*\{?\s*\\?(?:circ|degree|text|[A-Za-z]))|[-+*/\u2212]\s*[\d\\(x]"
    r"|[xyznkabi](?![^\W_])|\\(?:times|cdot|div|pm|pi|sqrt|[dt]?frac)(?![A-Za-z]))"
    r"|[\s$]*\\?%[\s$]*(?:\\text\s*\{)?\s*of\b|[\s$]*(?:\\text\s*\{)?\s*(?:times|squared|cubed|plus|minus)\b",
)
_FILLED = re.compile(r"[ \t]*=")


def takes_back(after: str) -> bool:
    """Whether what follows an answer withdraws it."""
    return takes_itself_back(after) or _INSTEAD.search(after[:_SEEN]) is not None


def takes_itself_back(answer: str) -> bool:
    """Whether an answer's own words withdraw it; they may begin with "no", as an option does."""
    return _RETRACTED.search(answer[:_SEEN]) is not None


def is_rejected(after: str) -> bool:
    """Whether the rest of an answer's own sentence says that it is wrong."""
    return _REJECTED.match(after[:_SEEN]) is not None


def is_supposed(before: str) -> bool:
    """Whether "the answer" is only supposed, asked about, or what somebody might think."""
    return _SUPPOSED.search(before) is not None


def is_term(before: str, after: str) -> bool:
    r"""Whether a box is a term or a bound, as in `-\boxed{5}`. The blank of `3 + \boxed{5} = 8` is an answer."""
    if _FILLED.match(after):
        return False
    return any((_OPERATOR_AFTER.match(after), _OPERATOR_BEFORE.search(before), _RELATION_BEFORE.search(before)))
