r"""Which option of a multiple-choice question a text names.

An option is its letter, alone, in brackets or quotes, behind "option", or before its own text ("B. Paris", "D - more").
The letter is no option where it is a word ("A patient", "I think"), belongs to a name ("hepatitis B", "E. coli", "B
cells") or stands beside another option ("A or B", "Both A and B"). Every letter and both cases are treated alike.
"""

import re

from ..reading.typography import typeset
from ..reading.words import is_denied

_OPTION_WORD = (
    r"(?:option|choice|letter|answer|opci[oó]n|opç[aã]o|opzione|antwort|lettre|вариант|optie|选项|選項|選択肢|项)"
)
_CLOSING = r"[)\]}\"'»」]*"
_LEADING = re.compile(
    rf"(?:(?:so|thus|therefore|hence|then|is|it\s+is|it['’]s|la|el|the|die)\b[\s,]*)*(?:{_OPTION_WORD}\s*:?\s*)?"
    rf"(?P<open>[(\[{{\"'«「]*)\s*(?P<letter>[A-Za-z])\s*(?P<close>{_CLOSING})(?=$|[\s.:,;/&*!?]|[^\x00-\u024f])"
    r"(?!\.[A-Za-z](?![^\W\d_]))",
    re.I,
)
_SECOND = re.compile(
    r"[\s)\].?!]*(?:,|/|&|<|>|、|\b(?:or|and|und|oder|y|o|et|ou|и|или)\b|和|或)\s*(?:also\s+|maybe\s+|possibly\s+)?[(\[]?"
    r"(?:[A-J](?![\w'’-])|[a-j]\))(?!\s*[,.]?\s*(?:is|was)\s+(?:wrong|incorrect|not|false))"
)
_REASON = re.compile(
    r"\s*(?:$|[^\x00-\u024f]|[).:,;\]*(!?=\u2013\u2014。，]|-\s|(?:because|since|as|is|which|based|due|for|with|and|but|given|here)\b|[\d.]+\W*$)",
    re.I,
)
_EPITHET = (
    r"coli|aureus|difficile|diff|pylori|cereus|pneumoniae|influenzae|meningitidis|gonorrhoeae|tuberculosis|albicans|"
    r"falciparum|vivax|perfringens|botulinum|tetani|anthracis|burgdorferi|trachomatis|typhi|jejuni|cholerae|fragilis|"
    r"monocytogenes|diphtheriae|neoformans|elegans|pyogenes|agalactiae|epidermidis|saprophyticus|faecalis|pertussis|"
    r"gondii|histolytica|lamblia|melanogaster"
)
_OF_A_NAME = re.compile(
    rf"\s*\.?\s*(?:{_EPITHET})\b|\s+(?:cells?|lymphocytes?|peptides?|sections?|dimers?|vitamins?|waves?|fib\b|antigens?|"
    r"virus(?:es)?|proteins?|strains?|major|minor|flat|sharp|hormones?|agglutinins?|fibers?)\b",
    re.I,
)
_BRACKETED = re.compile(
    rf"(?<![\w)])\(\s*([A-Ja-hj])\s*\)|(?<![^\W_]){_OPTION_WORD}\s*:?\s*[(\[]?([A-J])(?![\w'’])", re.I
)
_REFUTED = re.compile(
    r"\s*(?:is|was|isn['’]t|wasn['’]t|cannot|can|could|may|can['’]t|does\s?n[o'’]t|would|should|seems|looks)\b[^.;\n]*"
    r"(?:\b(?:wrong|incorrect|false|not|contraindicated|unlikely|out|excluded|eliminated|rejected|dismissed|discarded)\b|n['’]t\b)|\s*(?:is|was)n['’]t\b",
    re.I,
)
_STATED = re.compile(r"\s+(?:is|was|are|seems|looks|can|could|may|might|would|should|has|does)\b", re.I)
_PRAISED = re.compile(r"\b(?:correct|right|best|answer|true|most\s+\w+|consistent|fits)\b", re.I)
_CONDITIONAL = re.compile(
    r"[^.\n]*\b(?:otherwise|unless|or\s+else)\b|\s+(?:is|seems|looks|may|might)\b[^.\n]*\bbut\b", re.I
)
_BUT = re.compile(r"\s*[,;]?\s*(?:but|or|vs|versus)\b", re.I)
_DENIED_FIRST = re.compile(
    r"\s*(?:(?:(?:is|was|can|could)\s*n['’]t|cannot|can['’]t)(?:\s+be)?|not|neither)\s+(?P<denied>[(\[]?[A-J][)\]]?"
    r"(?:\s*(?:,|\bor\b|\bnor\b|\band\b)\s*[(\[]?[A-J][)\]]?)*)\s*[,;]?\s*"
    r"\b(?:but|rather|(?:so|therefore|thus|then)?,?\s*it(?:\s+is|['’]s|\s+must\s+be))\s+(?P<named>.+)",
    re.S,
)
_NOT_OPENING = re.compile(r"\s*(?:not|neither|none|both|all)\b", re.I)


def option_letter(text: str) -> str | None:
    """The upper-case letter of the one option that an answer names, as in "B", "(b)", "B. Paris"; None otherwise."""
    text = _plain(text)
    if instead := _DENIED_FIRST.match(text):  # not A, but B
        letter = option_letter(instead["named"])
        return None if letter and re.search(rf"\b{letter}\b", instead["denied"]) else letter
    if _is_excluded(text[: _start(text)]) or _NOT_OPENING.match(text):
        return None
    found = _LEADING.match(text)
    if found is not None and (letter := _opening(text, found)):
        return letter
    blocked = found is not None and (_SECOND.match(text, found.end()) or _REFUTED.match(text, found.end()))
    return None if blocked else _only_named(text)


def _plain(text: str) -> str:
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", typeset(text[:2_000])).replace("\\{", "").replace("\\}", "")
    return text.strip().strip("*_`$<> ").strip()


def _is_excluded(before: str) -> bool:
    """Whether an option is denied before it is named; "no (B)" names the option that says no."""
    before = before.rstrip(" (")
    return before.casefold() not in ("no", "yes", "maybe") and is_denied(before)


def _start(text: str) -> int:
    """Where the first capital that stands alone is, or the end."""
    found = re.search(r"(?<![^\W_])[A-Z](?![^\W_])", text)
    return found.start() if found else len(text)


def _opening(text: str, found: re.Match[str]) -> str | None:
    letter, rest = found["letter"], text[found.end() :]
    if re.match(r"\s*\?|\s+[^.!?\n]*\?\s*$", rest):
        return None
    marked = (
        bool(found["close"])
        or rest[:1] in (".", ":", ")")
        or bool(re.match(r"\s+[-\u2013\u2014]\s|[\u2013\u2014：]", rest))
    )
    is_article = letter in "AaIi" and not marked and not _REASON.match(rest)
    is_word = letter.islower() and not marked and bool(rest.strip(" .!?"))
    if _BUT.match(rest) or (_STATED.match(rest) and not _PRAISED.search(rest)):
        return None
    if _CONDITIONAL.match(rest) or ("'" in found["close"] and "'" not in found["open"]):
        return None
    if is_article or is_word or _REFUTED.match(rest) or _SECOND.match(rest) or _OF_A_NAME.match(rest):
        return None
    return str(letter.upper())


def _only_named(text: str) -> str | None:
    """The only letter in brackets or behind "option", as in "nitrofurantoin (D)"."""
    named = {(match[1] or match[2]).upper(): match.span() for match in _BRACKETED.finditer(text)}
    if len(named) != 1:
        return None
    [(letter, (start, end))] = named.items()
    return None if _is_excluded(text[:start]) or _REFUTED.match(text, end) else letter


# --- completions without a mark --------------------------------------------------------------------------------------

_OPENS_LINE = re.compile(r"\s*[(\[*\"']*([A-Ja-j])[)\]*\"']*(?:[).:]|\s+-\s|\s*$)[*\"']*")
_STATEMENT = re.compile(
    r"\s*[,:]?\s*(?:is|are|was|were|isn['’]t|can|cannot|does|do|would|could|has|have|seems?|says|states|refers|describes|let['’]?s?|"
    r"we|i|to|first|since|because|given|step|okay|ok|well|so|based|according|consider|looking|here|there|this|in\s+this)\b",
    re.I,
)
_AGAINST = re.compile(
    r"\b(?:contraindicated|unlikely|avoid\w*|distractors?|least|except|exclud\w*|eliminat\w*|ruled?|tempting|wrong|"
    r"incorrect|false|not)\b|n['’]t\b",
    re.I,
)
_ELSEWHERE = re.compile(
    r"(?<![^\W_])(?<!not )(?<!than )(?<!of )(?<!unlike )"
    r"(?:\(([A-J])\)|([A-J])[).:](?=\s|$)|(?:option|choice)\s+\(?([A-J])\b)"
)
_AFFIRMED = re.compile(
    r"(?:^|[.!?,;:]\s*|\b(?:option|choice|so|thus|hence|therefore|that)\s+)\(?([A-J])\)?\s+(?:is|seems|must\s+be)\s+(?:the\s+)?"
    r"(?:correct|right|best|true|most\s+\w+)",
    re.I,
)
_SO = re.compile(
    r"(?:^|[.!;]\s+)(?:so|thus|hence|therefore),?\s+(?:it\s+is\s+|it['’]s\s+)?[(\[]?([A-J])[)\]]?\s*[.!]?\s*$", re.I
)
_LEFT_OVER = re.compile(
    r"(?:wrong|incorrect|false|out|excluded|eliminated)\b[^.]*\b(?:so|therefore|thus|hence|leav\w+)[\s,]*(?:it\s+is\s+)?"
    r"[(\[]?([A-J])[)\]]?[.!]?\s*$",
    re.I,
)
_DISCUSSED = re.compile(
    r"\b(?:analy[sz]\w+|consider\w*|examin\w+|evaluat\w+|discuss\w*|review\w*|check(?:ing)?|(?:look|start|begin|go)\w*\s+(?:at|with|on\s+to|over)|"
    r"next|compar\w+|eliminat\w+|exclud\w+|rul\w+\s+out|reject\w*|discard\w*|dismiss\w*|avoid\w*|cross\w*\s+out)\s+(?:the\s+)?(?:option|choice|answer|statement|letter)\b",
    re.I,
)
_CONCLUDED = re.compile(
    r"(?:\b(?:is|be|choose|select|pick|with|therefore|thus|so|hence)\b|['’]s|->|=>|→|⇒|:)[\s,]*[(\[\"']*([A-J])[)\]\"']*[.!]?\s*$"
)


def named_option(text: str) -> tuple[str, bool] | None:
    """(what names the option, whether more could not change it) in a completion without a mark; None if in doubt."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    opened = _OPENS_LINE.match(lines[0])
    others: set[str] = set()
    if opened is not None:
        others = {next(filter(None, groups)) for groups in _ELSEWHERE.findall(text[opened.end() :])} - {
            opened[1].upper()
        }
        if _stands_alone(lines, opened, others):
            return lines[0].strip(), len(lines) > 1
    elif len(lines) == 1 and len(lines[0].split()) <= 8 and option_letter(lines[0]) and not _DISCUSSED.search(lines[0]):
        return lines[0].strip(), False
    named = _named_last(lines[-1])
    if named is None and opened is not None and others:
        return ", ".join(sorted(others | {opened[1].upper()})), False  # several options, and none of them
    return named


_BECAUSE = re.compile(r"\s*,?\s*\b(?:because|since|as)\b", re.I)


def _stands_alone(lines: list[str], opened: re.Match[str], others: set[str]) -> bool:
    rest = _BECAUSE.split(lines[0][opened.end() :], maxsplit=1)[0]
    following = _OPENS_LINE.match(lines[1]) if len(lines) > 1 else None
    if following is not None or _STATEMENT.match(rest) or _AGAINST.search(re.split(r",\s*not\s", rest)[0]):
        return False
    return not rest.strip() or not others


def _named_last(line: str) -> tuple[str, bool] | None:
    if left := _LEFT_OVER.search(line):
        return left[1], False
    if so := _SO.search(line):
        return so[1], False
    affirmed = {letter.upper() for letter in _AFFIRMED.findall(line)}
    if len(affirmed) == 1:
        return affirmed.pop(), False
    if is_denied(line) or _AGAINST.search(line) or _DISCUSSED.search(line):
        return None
    if option := _only_named(line):
        return option, False
    concluded = _CONCLUDED.search(line)
    return (concluded[1], False) if concluded and len(_letters(line)) == 1 else None


def _letters(line: str) -> set[str]:
    return set(re.findall(r"(?<![^\W_'’-])[B-H](?![^\W_'’-])", line)) | set(
        re.findall(r"(?<![^\W_'’-])[AIJ](?=[).\s]*$)", line)
    )
