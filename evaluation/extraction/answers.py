r"""Finds the final answer in a completion: by explicit marks first, else only where a reader would have no doubt.

What stands before the last `</think>` is reasoning and is ignored; reasoning that never ended holds no answer, and what
follows where the model begins another turn is not read. Then the first rule that applies decides:

1. `tag`     the last `<answer>...</answer>`, and what these rules find in it
2. `boxed`   the last `\boxed{...}`; boxes joined by "and", "or", commas or wide spaces are one answer in several parts
3. `hash`    the rest of the line after the last `####` (headings such as `#### Step 2` are passed over)
4. `final`   the sentence after the last "final answer is" or "final answer:", in the common languages
5. `phrase`  the sentence after the last "answer is" or "answer:", or before "is the answer"
6. by kind   the whole completion when it is no prose. Else, for a choice, the option that opens it or that the last
             line names, if no other is named; for a number or formula, what is bold in the last line, or the last
             value that stands alone, if nothing takes it back

Where two things could be meant, neither is an answer. Emphasis, case and the position of a letter in the alphabet count
for nothing. All scans are linear in the completion's length.
"""

import re
from collections.abc import Callable
from itertools import islice

from ..reading.typography import fold, without_emphasis, without_special_tokens
from .choices import named_option
from .marks import boxed, hashed, last, phrased, tagged
from .sentences import Answer, clean
from .unmarked import last_value

__all__ = ["MAX_COMPLETION", "Answer", "clean", "explicit_answer", "extract_answer", "final_part", "opens_reasoning"]

MAX_COMPLETION = 65_536
"""Characters looked at, from the end."""


def extract_answer(completion: str, kind: str, *, reasoning: bool = False) -> Answer | None:
    """The final answer of a completion, or None. `kind` is math, numeric, choice or exact.

    `reasoning`: the prompt ends in an opened `<think>`, which the completion has to close.
    """
    text = final_part(completion, reasoning=reasoning)
    if text is None:
        return None
    text = without_special_tokens(text)
    answer = _find(text if kind == "exact" else fold(text), kind)
    return answer if answer is not None and answer.text else None


def _find(text: str, kind: str) -> Answer | None:
    plain = text if kind == "exact" else without_emphasis(text)
    answer = tagged(plain)
    if answer is not None:
        inner = _marked(answer.text, kind)
        text = answer.text if inner is None else inner.text
        return Answer(text if kind == "exact" else clean(text), "tag", answer.closed)
    return _marked(_first_turn(plain, kind), kind) or _LIBERAL[kind](text)


def _marked(text: str, kind: str) -> Answer | None:
    """The answer behind a box, `####` or a phrase."""
    answer = boxed(text) or hashed(text)
    if answer is not None and not answer.text and answer.end:  # taken back: what is concluded afterwards counts
        return _marked(text[answer.end :], kind) or answer
    for final in (True, False):
        answer = answer if answer is not None else phrased(text, final=final, choice=kind == "choice")
    return answer


def explicit_answer(text: str) -> Answer | None:
    """The answer marked by a tag, a box or `####`; None without such a marker."""
    for rule in (tagged, boxed, hashed):
        answer = rule(text)
        if answer is not None:
            return answer
    return None


# --- which part of the text is the answer's --------------------------------------------------------------------------

_OPENED = re.compile(r"<(?:think|thinking|reasoning|thought)>", re.I)
_ENDED = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.I)
_MAX_TURNS = 8
_NEXT_TURN = re.compile(
    r"\n\s*(?:(?:###\s*)?(?:Question|Problem|Q|User|Human|Instruction|Input)\s*\d{0,3}\s*:|\[INST\])", re.I
)


def final_part(completion: str, *, reasoning: bool = False) -> str | None:
    """The end of the completion without the reasoning; None when reasoning never ended."""
    text = completion[-MAX_COMPLETION:]
    ended = last(_ENDED, text)
    rest = text[ended.end() :] if ended else text
    if _OPENED.search(rest) or (ended is None and (reasoning or _OPENED.search(completion))):
        return None
    return rest


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends in an opened `<think>`, so that the completion starts inside it."""
    opened = last(_OPENED, prompt)
    return opened is not None and not prompt[opened.end() :].strip()


def _first_turn(text: str, kind: str) -> str:
    """Up to where the model asks itself another question, if it has answered the first by then."""
    for turn in islice(_NEXT_TURN.finditer(text), _MAX_TURNS):
        before = text[: turn.start()]
        if before.strip() and _marked(before, kind) is not None:
            return before + "\n"
    return text


# --- without a mark --------------------------------------------------------------------------------------------------


def _choice(text: str) -> Answer | None:
    named = named_option(without_emphasis(text))
    return None if named is None else Answer(clean(named[0]), "named", closed=named[1])


def _numeric(text: str) -> Answer | None:
    return last_value(text, formulas=False)


def _math(text: str) -> Answer | None:
    return last_value(text, formulas=True)


def _exact(text: str) -> Answer | None:
    return Answer(text.strip(), "whole", closed=False)


_LIBERAL: dict[str, Callable[[str], Answer | None]] = {
    "math": _math,
    "numeric": _numeric,
    "choice": _choice,
    "exact": _exact,
}
