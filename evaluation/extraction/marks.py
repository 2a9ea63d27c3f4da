r"""Explicit marks of a final answer: tags, boxes, `####`, and "the answer is" in the common languages.

The last mark of a kind counts. Boxes joined by "and", "or", commas or wide spaces are one answer with several parts. A
mark with nothing behind it is no answer. All scans are linear in the text's length.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from ..reading.words import is_denied
from .choices import option_letter
from .doubt import is_rejected, is_supposed, is_term, takes_back
from .sentences import Answer, clean, sentence

# --- tags, boxes, hashes ---------------------------------------------------------------------------------------------

_TAG_OPENS = re.compile(r"<\s*(answer|final_answer|final)\s*>", re.I)
_TAG_CLOSES = re.compile(r"<\s*/\s*(?:answer|final_answer|final)\s*>", re.I)


def tagged(text: str) -> Answer | None:
    """What stands in the last `<answer>`; the answer inside it is still to be found."""
    end = last(_TAG_CLOSES, text)
    start = last(_TAG_OPENS, text[: end.start()] if end else text)
    if start is None:
        return None
    inner = text[start.end() : end.start() if end else len(text)].strip()
    return Answer("" if end and takes_back(text[end.end() :]) else inner, "tag", closed=end is not None)


_BRACES = re.compile(r"(?:\\|\x08|(?<![A-Za-z]))(?:boxed|fbox|framebox)\s*\{|\\[{}\\]|[{}]")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s+([^\s${}]+)|([\dA-Z]))")
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^\n$]*)")
_GAP = r"(?:[\s$,;.\\()\[\]*&]|\\(?:q?quad|text|mbox|mathrm|,|;|:|!|\s)|[{}])*"
_CONNECTIVE = r"(?:and\s*/\s*or|and|or|und|oder|et|ou|y|o|и|или|和|或|及)(?:\s+(?:maybe|possibly|perhaps|else|also))?"
_LABEL = r"(?:\\?[A-Za-z](?:_\{?\w+\}?)?\s*(?:=|:)\s*)?"
_JOINED = re.compile(rf"{_GAP}(?:\b{_CONNECTIVE}\b|[,;、，]|\\q?quad|[和或及]){_GAP}{_LABEL}{_GAP}")


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


def boxed(text: str) -> Answer | None:
    """The last box, with those that it is joined to."""
    if "boxed" not in text and "fbox" not in text:
        return None
    boxes = list(_boxes(text))
    if not boxes:
        return _unclosed_box(text)
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _JOINED.fullmatch(text[box[1] : parts[0][0]][:80]):
            break
        parts.insert(0, box)
    before, after = text[: parts[0][0]][-80:], text[parts[-1][1] :]
    doubtful = is_term(before, after[:80]) or is_rejected(after) or takes_back(after)
    contents = list(dict.fromkeys(part[2] for part in parts))  # the same box twice is one
    return Answer("" if doubtful else ", ".join(contents), "boxed", end=parts[-1][1])


def _unclosed_box(text: str) -> Answer | None:
    bare = last(_BARE_BOX, text)
    if bare is not None:
        return Answer(clean(bare[1] or bare[2]), "boxed", closed=False)
    opened = last(_OPEN_BOX, text)
    return Answer(clean(opened[1].rstrip("\\")), "boxed", closed=False) if opened else None


_HEADING = re.compile(
    r"\W*(?:(?:step|part|case|solution|final|answer|explanation|conclusion|calculation|summary|approach|problem|given|"
    r"reasoning|verification|check|note|result|method)\b|\d+[.)]\s+[A-Za-z])|[^\n]*:\s*$",
    re.I,
)


def hashed(text: str) -> Answer | None:
    """The rest of the line after the last `####`; headings are passed over."""
    end = len(text)
    while (start := text.rfind("####", 0, end)) >= 0:
        rest = text[start + 4 :].lstrip("# \t\r\n")
        line, newline, following = rest.partition("\n")
        goes_on = re.search(r"[\d\\$]|\([A-J]\)", following)
        is_prose = goes_on and len(line.split()) > 1 and not (re.search(r"\d", line) or option_letter(line))
        if not is_prose and not _HEADING.match(line):
            doubtful = takes_back(text[start + 4 :])
            return Answer("" if doubtful else clean(line), "hash", bool(newline), len(text) - len(following))
        end = start
    return None


def last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of a pattern."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


# --- phrases ---------------------------------------------------------------------------------------------------------

_NOUN = re.compile(
    r"(?<![^\W\d_])(?:answers?|ans|antwort(?:en)?|réponses?|respuestas?|respostas?|rispost[ae]|antwoord(?:en)?|svar(?:et)?"
    r"|vastaus(?:\s+on)?|odpowied[źz](?:\s+to)?|odpověď|ответ(?:ом)?|відповідь|cevap|cevab[ıi]|yanıt|jawaban(?:nya)?|đáp\s+án|câu\s+trả\s+lời"
    r"|răspuns(?:ul)?|απάντηση|válasz)(?![^\W\d_])|答案|答え|答(?=[:：])|正解|정답|답|الإجابة|الجواب|پاسخ|جواب|उत्तर|คำตอบ|התשובה",
    re.I,
)
_OPTION_NOUN = re.compile(
    r"\b(?:correct|right|best|appropriate|suitable)\s+(?:\w+\s+)?(?:option|choice|response|alternative|letter|statement)\b",
    re.I,
)
_CHOSEN = re.compile(
    r"(?:^|\n)[^\w\n]{0,9}(?:choose|select|pick|mark)\b|\b(?:I|we)(?:\s+would|\s+will|['’]d|['’]ll)?\s+(?:choose|select|pick|go\s+with)\b|(?:[故应應]|因此)?[选選][择擇]?(?=\s*[(（]?[A-J])",
    re.I,
)
_IS = (
    r"(?<![^\W\d_])(?:(?:would|should|must|will|has\s+to|can|could|might|may)\s+(?:only\s+)?be|is|are|was|were|equals?|"
    r"(?:can(?:\s?no|['’])t|won['’]t|wouldn['’]t|shouldn['’]t)\s+be|isn['’]t|aren['’]t|wasn['’]t|ist|sind|lautet|wäre|est|"
    r"sont|es|son|sería|será|é|são|será|è|sono|är|er|brzmi|je|равен|равно|это|будет|adalah|là|este|είναι)(?![^\W\d_])"
    r"|[应應]?[该該]?[就]?是|[为為]|は|が|은|는|(?:هي|هو|คือ|היא|הוא)(?![^\W\d_])"
)
_NO_GAP = r"(?!(?<![^\W\d_])(?:because|since|but|and|so|if|when|while|whereas|weil|porque|car|ohne)(?![^\W\d_]))"
_ADJECTIVES = r"(?:\s+(?:final\w*|correct\w*|choice|option|value|\([^()\n]{1,20}\)|to\s+the\s+\w+)){0,2}"
_SPEAKS_OF_IT = (
    r"(?!\s*an?\s+(?:\w+\s+)?(?:integer|number|fraction|decimal|letter|option)\b\s*(?:[.!,\n]|$))"
    r"(?!\s*(?:correct|right|clear|obvious|verified|consistent|reasonable|valid|unique|as\s+above)\b\s*(?:[.!,\n]|$))"
)
_TAIL = re.compile(
    rf"{_ADJECTIVES}[\s*_)\]]{{0,3}}(?P<quote>[\"']?)[*_\s]{{0,3}}(?:[:：]|=(?!=))[*_]{{0,3}}"
    rf"|(?P<gap>(?:{_NO_GAP}[^\n.:：=?!;。，]){{0,60}}?)(?P<is>{_IS})(?:\s*[:：])?{_SPEAKS_OF_IT}|\s*[—–]\s",
    re.I,
)
_LABEL_BEFORE = re.compile(r"(?:^|\n)[^\w\n]*(?:(?:the|my|our|final|correct|best|right)\s+){0,3}$", re.I)
_LABEL_TAIL = re.compile(
    r"(?P<gap>)(?:[*_ ]{0,4}\n|\s+-\s|\s*\.\s+(?=[-$(]?\d|\(?[A-J]\b)|\s+(?=\(?[A-J](?![^\W_])|\\?\$?\d))", re.I
)
_UNSPACED_TAIL = re.compile(r"(?P<gap>)\s*(?=\(?[A-J](?![^\W_])|\\?\$?\d)")
_FINAL = re.compile(r"final|endgültig|última|definitiv|окончательный|最[终終后後]|최종", re.I)
_IS_THE_ANSWER = re.compile(
    r"(?:^|(?<=[.!?\n]))(?P<subject>[^\n.!?]{1,200}?)\s+(?:is|are|would\s+be|must\s+be|should\s+be)\s+(?:therefore\s+)?"
    r"(?:the|my|our)\s+(?:\w+\s+){0,2}?(?:answer|option|choice|response)\b(?!\s+to\b)",
    re.I,
)
_INTRODUCTION = re.compile(r"^\W*(?:of|among|from|given|based|after|in|so|thus|therefore|hence)\b[^,]*,\s*", re.I)
_PRONOUN = re.compile(
    r"\W*(?:(?:so|thus|and|hence|therefore),?\s+)?(?:(?:i|we)\s+(?:hope|think|believe|guess)\s+(?:that\s+)?)?(?:it|that|this|which|what|here|there|these|below)\W*",
    re.I,
)
_HEDGED = re.compile(r"n['’]t|not|could|might|may\b|\bcan\s+be", re.I)


def phrased(text: str, *, final: bool, choice: bool) -> Answer | None:
    """What follows the last "the answer is" (`final`: the last "the final answer is"), or precedes "is the answer"."""
    rule = "final" if final else "phrase"
    found = [each for each in (_last_noun(text, _NOUN, final), None if final else _last_subject(text)) if each]
    if choice and not final:
        chosen = last(_CHOSEN, text)
        found += [each for each in (_last_noun(text, _OPTION_NOUN, False), chosen and (chosen.end(), chosen)) if each]
    if not found:
        return None
    place, match = max(found, key=lambda each: each[0])
    if match.re is _IS_THE_ANSWER:
        return Answer(clean(_INTRODUCTION.sub("", match["subject"])), rule)
    groups = match.groupdict()
    answer = _quoted(text[place:], rule) if groups.get("quote") == '"' else sentence(text[place:], rule)
    hedge = f"{groups.get('gap') or ''}{groups.get('is') or ''}".strip()
    is_hedged = _HEDGED.search(groups.get("is") or "") or is_denied(hedge)
    return replace(answer, text=f"{hedge} {answer.text}") if is_hedged else answer


def _last_noun(text: str, noun: re.Pattern[str], final: bool) -> tuple[int, re.Match[str]] | None:
    if noun is _NOUN and (cut_off := _CUT_OFF.search(text, max(0, len(text) - 160))):
        return len(text), cut_off  # a mark with nothing behind it
    for found in reversed(list(noun.finditer(text))):
        tail = _tail(text, found)
        before = text[max(0, found.start() - 60) : found.start()]
        if tail is None or _NO_ANSWER_BEFORE.search(before) or is_supposed(before):
            continue
        if not final or _FINAL.search(text[max(0, found.start() - 20) : found.start()] + tail[0]):
            return tail.end(), tail
    return None


_CUT_OFF = re.compile(
    r"(?:[.!?]\s+|\n)(?:(?:so|thus|therefore|hence),?\s+)?the\s+(?:(?:final|correct)\s+)?answer(?:\s+to\b[^.!?:=\n]{0,100})?\s*$",
    re.I,
)
_NO_ANSWER_BEFORE = re.compile(r"\b(?:wrong|incorrect|false|worst|bad|least\s+\w+)\s*$", re.I)


def _tail(text: str, noun: re.Match[str]) -> re.Match[str] | None:
    """What joins the word for answer to the answer; a bare line or blank only behind a label of its own."""
    tail = _TAIL.match(text, noun.end())
    if tail is None and not noun[0].isascii():
        tail = _UNSPACED_TAIL.match(text, noun.end())
    if tail is None and _LABEL_BEFORE.search(text, max(0, noun.start() - 40), noun.start()):
        tail = _LABEL_TAIL.match(text, noun.end())
    return tail


def _last_subject(text: str) -> tuple[int, re.Match[str]] | None:
    found = last(_IS_THE_ANSWER, text)
    return None if found is None or _PRONOUN.fullmatch(found["subject"]) else (found.end(), found)


def _quoted(rest: str, rule: str) -> Answer:
    """A value of JSON."""
    match = re.match(r'\s*"((?:[^"\\]|\\.)*)"|\s*([^,}\n]*)', rest)
    assert match is not None  # the second form matches everything
    closed = match.end() < len(rest)
    return Answer(clean(match[1] if match[1] is not None else match[2]), rule, closed)
