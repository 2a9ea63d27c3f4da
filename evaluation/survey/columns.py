"""Which columns of demonstrations and problems ask, and which answer: by their names, and by what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...spaces.errors import UserError

Values = Mapping[str, Any]

KNOWN = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"))
"""Shapes that demonstrations are read in without a word, in the reader's order; `text` comes last of all."""
ASKING = (
    "prompt", "question", "query", "problem", "instruction", "input", "user", "ask", "source", "context", "human",
)  # fmt: skip
ANSWERING = (
    "completion", "response", "answer", "output", "solution", "chosen", "target", "assistant", "reply", "label",
    "generation", "gpt",
)  # fmt: skip
GOLD = (
    "answer", "gold", "final_answer", "target", "label", "answerKey", "answer_key", "answer_idx", "expected",
    "solution", "output", "completion", "response",
)  # fmt: skip
QUESTION = ("question", "problem", "prompt", "query", "instruction", "input", "ask", "goal", "stem")
CHOICES = ("choices", "options", "candidates", "endings")
BESIDE = frozenset({"system", "input", "history", "tools", "chat_template_kwargs"})
"""Columns that the reader looks at by itself."""


def demonstration_columns(rows: Sequence[Values], settings: Mapping[str, Any], title: str) -> dict[str, str]:
    """Settings that name the columns of demonstrations; none where the reader finds them by itself.

    `rows`: some rows of the data, `settings`: what somebody says of them. Raises UserError where nothing fits.
    """
    named = {key: value for key, value in settings.items() if key.endswith("_column") and value}
    first = rows[0]
    if named or any(all(column in first for column in shape) for shape in KNOWN):
        return named
    talks = [column for column in first if any(_is_talk(row.get(column)) for row in rows)]
    if talks:
        return {"messages_column": talks[0]}
    asking, answering = (_text_column(rows, names) for names in (ASKING, ANSWERING))
    if asking is not None and answering is not None:
        return {"prompt_column": asking, "completion_column": answering}
    if "text" in first:
        return {}
    raise UserError(
        "the demonstrations must have a column with messages, one that asks and one that answers, or one of whole "
        f"texts: looked for {', '.join(' and '.join(shape) for shape in KNOWN)}, for one of {', '.join(ASKING)} with "
        f"one of {', '.join(ANSWERING)}, and for text; {title} has {_described(first)}; name them: --prompt-column "
        "NAME --completion-column NAME, --messages-column NAME or --text-column NAME",
        field="data.prompt_column",
    )


def shape_of(first: Values, named: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that demonstrations are read from, and those that are not read."""
    if named:
        used = tuple(named[key] for key in named)
    else:
        known = next((shape for shape in KNOWN if all(column in first for column in shape)), ("text",))
        used = tuple(known)
    beside = BESIDE if len(used) < 2 or used == ("instruction", "output") else BESIDE - {"system", "input", "history"}
    return used, tuple(str(column) for column in first if column not in used and column not in beside)


def problem_columns(rows: Sequence[Values], title: str) -> dict[str, str]:
    """`question_column`, `answer_column` and `choices_column` of problems. Raises UserError where nothing fits."""
    found = {"question_column": _named(rows, QUESTION), "answer_column": _named(rows, GOLD)}
    if found["question_column"] == found["answer_column"] or None in found.values():
        raise UserError(
            f"problems must have a column that asks and one with the known answer: looked for one of "
            f"{', '.join(QUESTION)} and one of {', '.join(GOLD)}; {title} has {_described(rows[0])}; rename two "
            "columns, or write `question_column` and `answer_column` into the study file",
            field="evaluation.tasks",
        )
    choices = next((name for name in CHOICES if isinstance(rows[0].get(name), list | Mapping)), None)
    return {key: value for key, value in (found | {"choices_column": choices}).items() if value is not None}


def _named(rows: Sequence[Values], names: Sequence[str]) -> str | None:
    """The first of `names` that every row has, whatever its case."""
    known = {str(column).lower(): str(column) for column in rows[0]}
    found = (known[name.lower()] for name in names if name.lower() in known)
    return next((column for column in found if all(row.get(column) is not None for row in rows)), None)


def _text_column(rows: Sequence[Values], names: Sequence[str]) -> str | None:
    """As `_named`, where the column holds text or messages."""
    return _named([{k: v for k, v in row.items() if isinstance(v, str) or _is_talk(v)} for row in rows], names)


def _is_talk(value: Any) -> bool:
    """Whether a value is a list of messages."""
    if not isinstance(value, list) or not value or not all(isinstance(each, Mapping) for each in value):
        return False
    return all({"role", "content"} <= each.keys() or {"from", "value"} <= each.keys() for each in value)


def _described(row: Values) -> str:
    return ", ".join(f"{column} ({type(value).__name__} {str(value)[:30]!r})" for column, value in row.items())
