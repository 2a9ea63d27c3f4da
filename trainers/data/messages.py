"""The messages of a conversation, checked: roles, text, calls of tools, and which of them are learnt.

A message reaches the chat template whole, with every key that it has. Parts of text are joined; what is no text is
refused, since the models here read nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...spaces.errors import UserError
from .notes import Notes

Message = Mapping[str, Any]

KNOWN = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
ALIASES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}
"""Names that data sets give to the roles which chat templates know."""
TEXT_PARTS = ("text", "input_text", "output_text")
OLD_CALL = "function_call"
"""The key of a call of a function before there were `tool_calls`."""
REASONING = ("reasoning_content", "reasoning", "thinking")
FLAGS = ("weight", "train")
"""Keys that say whether an assistant's message is learnt."""
FIELD = "data"
SHOWN = 80


def refused(column: str, rule: str, place: str, value: Any, remedy: str, field: str = FIELD) -> UserError:
    """The error of a row: column, rule, file and line, value, remedy."""
    text = "null" if value is None else str(value) if isinstance(value, list | dict) else repr(value)
    return UserError(f"`{column}` must be {rule}, but {place} has {text[:SHOWN]}; {remedy}", field=field)


def read_messages(value: Any, place: str, column: str, notes: Notes) -> list[Message]:
    """A column's messages, as `{role, content}` or ShareGPT's `{from, value}`, with whatever else they hold.

    Raises UserError for an empty list, and for a message without role or text.
    """
    if not isinstance(value, list) or not value or not all(isinstance(each, Mapping) for each in value):
        raise refused(column, "text or a list of {role, content} with a message in it", place, value, "mend the row")
    return [_message(each, place, column, notes) for each in value]


def _message(entry: Message, place: str, column: str, notes: Notes) -> Message:
    found = {key: value for key, value in entry.items() if value is not None}
    if "role" not in entry and "from" in entry:
        found = {{"from": "role", "value": "content"}.get(key, key): value for key, value in found.items()}
    role = _role(found.get("role"), place, column, notes)
    calls = _calls(found.get("tool_calls"), place, column) or isinstance(found.get(OLD_CALL), Mapping)
    content = "" if calls and found.get("content") is None else text_of(found.get("content"), place, column)
    for key in REASONING:
        if key in found:
            text_of(found[key], place, f"{column}.{key}")
    return {**found, "role": role, "content": content}


def _role(value: Any, place: str, column: str, notes: Notes) -> str:
    if not isinstance(value, str) or not value.strip():
        rule = f"messages with a role ({', '.join(sorted(KNOWN))})"
        raise refused(column, rule, place, value, "mend the row", FIELD)
    known = value.strip().lower()
    meant = known if known in KNOWN else ALIASES.get(known)
    if meant is None:
        notes.count(f"the role `{value}` is none that chat templates know, and is passed on as it is", place)
        return value
    if meant != value:
        notes.count(f"the role `{value}` is read as `{meant}`", place)
    return meant


def text_of(value: Any, place: str, column: str) -> str:
    """Text, or parts of text joined. Raises UserError for anything else, and for what is no Unicode text."""
    if isinstance(value, list) and value:
        return "".join(_part(each, place, column) for each in value)
    if not isinstance(value, str):
        raise refused(column, "text, or parts {type: text, text}", place, value, "mend the row, or leave it out")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise refused(
            column, "Unicode text", place, value[max(0, error.start - 20) : error.end], "half a character is missing"
        ) from None
    return value


def _part(value: Any, place: str, column: str) -> str:
    if isinstance(value, Mapping) and value.get("type", "text") in TEXT_PARTS and isinstance(value.get("text"), str):
        return text_of(value["text"], place, column)
    raise refused(
        column, "text, or parts {type: text, text}", place, value, "models of language alone read no other parts; "
        "leave the row out",
    )  # fmt: skip


def _calls(value: Any, place: str, column: str) -> bool:
    """Whether there are calls of tools; raises UserError when they are not in the form that templates read."""
    if value is None or value == []:
        return False
    calls = value if isinstance(value, list) else [None]
    if not all(isinstance(each, Mapping) and isinstance(called(each).get("name"), str) for each in calls):
        rule = "messages whose `tool_calls` are a list of {type: function, function: {name, arguments}}"
        raise refused(column, rule, place, value, "mend the row")
    return True


def called(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name and arguments of a call, which some write inside `function`."""
    inner = call.get("function")
    return inner if isinstance(inner, Mapping) else call


def learnt_messages(messages: Sequence[Message], learn: str, place: str, column: str, notes: Notes) -> tuple[int, ...]:
    """Numbers of the assistant's messages that are learnt, rising.

    `learn: last` takes the last one; `all` takes every one that answers something and has no `weight: 0` or
    `train: false`. Raises UserError where there is none, and where weights ask for something else than `learn`.
    """
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        roles = [message["role"] for message in messages]
        raise refused(
            column, "a conversation with an assistant message to learn from", place, roles, "leave the row out",
            f"{FIELD}.messages_column",
        )  # fmt: skip
    flags = {number: _flag(messages[number], place, column) for number in answers}
    if learn == "last":
        return (_last(answers, flags, place, column),)
    wanted = [number for number in answers if flags[number] is not False]
    asked = [number for number in wanted if any(each["role"] != "system" for each in messages[:number])]
    for _ in range(len(wanted) - len(asked)):
        notes.count("an assistant's message that answers nothing is context, and not learnt", place)
    return tuple(asked)


def _last(answers: Sequence[int], flags: Mapping[int, bool | None], place: str, column: str) -> int:
    *earlier, last = answers
    if flags[last] is False or any(flags[number] for number in earlier):
        raise refused(
            column, "a conversation of which the last answer alone is learnt (`data.learn: last`)", place,
            [flags[number] for number in answers], "its weights say otherwise: set `data.learn: all`", f"{FIELD}.learn",
        )  # fmt: skip
    if last == 0:
        raise refused(
            column, "a conversation with something to answer", place, "an assistant message alone",
            "put the question before it, or use a column `text`", f"{FIELD}.messages_column",
        )  # fmt: skip
    return last


def _flag(message: Message, place: str, column: str) -> bool | None:
    """Whether a message says that it is learnt; None where it does not say."""
    said = [message[key] for key in FLAGS if key in message]
    if any(not isinstance(value, int | float) or not 0 <= value < math.inf for value in said):
        raise refused(f"{column}.weight", "a number from 0 up (`train`: true or false)", place, said[0], "mend the row")
    if message.get("train", 0) not in (0, 1):
        raise refused(f"{column}.train", "true or false", place, message["train"], "mend the row")
    return all(said) if said else None


def empty(message: Message) -> bool:
    """Whether an answer says nothing and calls nothing."""
    texts = [message.get(key) for key in ("content", *REASONING)]
    return not _called(message) and not any(isinstance(text, str) and text.strip() for text in texts)


def lacking(message: Message, learnt: str) -> str | None:
    """What of an answer is not in the text that is learnt, for people; None where all of it is.

    White space does not count: templates trim and wrap.
    """
    there = _Within(learnt)
    for key in ("content", *REASONING):
        if isinstance(text := message.get(key), str) and not there(text):
            return f"its `{key}` {text[:SHOWN]!r}"
    for key, call in _called(message):
        for value, forms in _pieces(call):
            if not any(there(form) for form in forms):
                return f"{value!r} of its `{key}`"
    return None


def dropped(message: Message, text: str) -> list[str]:
    """Keys of a message before an answer that are not in what a chat template writes; earlier reasoning may go."""
    there, content = _Within(text), message["content"]
    if message["role"] == "assistant":
        content = content.rpartition("</think>")[2]
    quoted = (json.dumps(content, ensure_ascii=each)[1:-1] for each in (False, True))  # as some templates write it
    found = [] if there(content) or any(map(there, quoted)) else ["content"]
    for key, call in _called(message):
        if not all(any(map(there, forms)) for _, forms in _pieces(call)):
            found.append(key)
    return list(dict.fromkeys([*found, *unwritten(message, text)]))


def unwritten(message: Message, text: str) -> list[str]:
    """Keys beside those that `lacking` looks at, of whose texts some are not in what a chat template writes."""
    known = {"role", "content", "tool_calls", OLD_CALL, "name", "id", "tool_call_id", *REASONING, *FLAGS}
    return [
        key for key, value in message.items() if key not in known and any(each not in text for each in _texts(value))
    ]


class _Within:
    """Whether a text stands in another one, white space aside."""

    def __init__(self, text: str) -> None:
        self._text, self._squeezed = text, ""

    def __call__(self, text: str) -> bool:
        if text.strip() in self._text:
            return True
        self._squeezed = self._squeezed or "".join(self._text.split())
        return "".join(text.split()) in self._squeezed


def _called(message: Message) -> list[tuple[str, Mapping[str, Any]]]:
    """The calls of a message, each with the key that holds it."""
    old = message.get(OLD_CALL)
    calls = [("tool_calls", called(call)) for call in message.get("tool_calls") or ()]
    return [*calls, *([(OLD_CALL, old)] if isinstance(old, Mapping) and isinstance(old.get("name"), str) else [])]


def _pieces(call: Mapping[str, Any]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Each name and value of a call, with the forms in which templates write it."""
    yield call["name"], (call["name"],)
    arguments = call.get("arguments", {})
    if isinstance(
        arguments, str
    ):  # JSON as text; written as JSON once more, it would be learnt with its quotes escaped
        yield arguments, (arguments,)
        return
    for value in _leaves(arguments):
        written = [json.dumps(value, ensure_ascii=each) for each in (False, True)]
        yield value, (str(value), *(text[1:-1] if isinstance(value, str) else text for text in written))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in (key, *_leaves(each))]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]


def _texts(value: Any) -> list[str]:
    """The texts somewhere in a value, names aside."""
    if isinstance(value, Mapping | list):
        return [text for each in (value.values() if isinstance(value, Mapping) else value) for text in _texts(each)]
    return [value] if isinstance(value, str) else []
