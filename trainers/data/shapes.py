"""From a row to a demonstration, in the shapes that data sets come in.

    messages              a list of {role, content}, or ShareGPT's `conversations` of {from, value}
    prompt, completion    text, or messages
    instruction, output   Alpaca: with `input`, `system` and `history` where a row has them
    text                  learnt whole, as it is

Columns beside these (`tools`, `chat_template_kwargs`) go to the chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...spaces.errors import UserError
from .formats import Row
from .messages import FIELD, Message, empty, learnt_messages, read_messages, refused, text_of
from .notes import Notes
from .turns import Conversation, Known, PlainText, Turn, message_weight, read_known

if TYPE_CHECKING:
    from .sources import Source

Read = Callable[[Row], Turn]

KWARGS_COLUMN = "chat_template_kwargs"
PICTURES = frozenset({"image", "images", "video", "videos", "audio", "audios"})
"""Columns of data that is not text alone."""
RESERVED = frozenset({
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "strftime_now",
})  # fmt: skip
"""Names that are no free variables of a chat template."""


def turn_reader(settings: Source, columns: Mapping[str, Any], title: str, notes: Notes) -> Read:
    """The function that reads rows, by the columns that the settings name or the first row has.

    Raises UserError when these are no shape of demonstrations.
    """
    shape = _Shape(settings, notes)
    named = _named(settings)
    if not named:
        fitting = [each for each in _KNOWN if each.keys <= columns.keys()]
        named = fitting[0] if fitting else _PAIR
        if len(fitting) > 1:
            others = ", nor ".join(each.title for each in fitting[1:])
            key = next(iter(fitting[1].defaults))
            notes.say(f"{title}: {named.title} is learnt, not {others}, which it has too; `{FIELD}.{key}` chooses")
    for key, column in named.columns(settings).items():
        if column not in columns:
            raise UserError(
                f"`{key}` must name a column of {title}, but it has no column {column!r}; its columns are "
                f"{', '.join(map(str, columns))}. Known without a name: {', '.join(each.title for each in _KNOWN)}",
                field=f"{FIELD}.{key}",
            )
    return lambda row: named.read(shape, row)


@dataclass(frozen=True, eq=False)
class _Form:
    """A shape: its columns by default, by the setting that names another, and how a row of it is read."""

    defaults: Mapping[str, str]
    read: Callable[[_Shape, Row], Turn]

    @property
    def keys(self) -> set[str]:
        return set(self.defaults.values())

    @property
    def title(self) -> str:
        return " and ".join(self.defaults.values())

    def columns(self, settings: Source) -> dict[str, str]:
        """Columns that every row must have, by the setting that names them."""
        found = {key: getattr(settings, key, None) or column for key, column in self.defaults.items()}
        marks = ("critical_column", "weight_column", "reference_logprob_column")
        return found | {key: column for key in marks if (column := getattr(settings, key)) is not None}


class _Shape:
    """Reads rows of one source."""

    def __init__(self, settings: Source, notes: Notes) -> None:
        self.settings, self.notes = settings, notes

    def messages(self, row: Row, default: str = "messages") -> Turn:
        column = self.settings.messages_column or default
        value = _parsed(self._cell(row, column, "messages_column"), row.place, column)
        if not self.settings.chat:
            raise refused(
                column, "used with `data.chat: true`", row.place, "chat: false",
                "messages without a template would be glued together: set `chat: true`, or give columns prompt and "
                "completion", f"{FIELD}.chat",
            )  # fmt: skip
        if not isinstance(value, list):
            raise refused(column, "a list of {role, content}", row.place, value, "mend the row")
        shared = bool(value) and isinstance(value[0], Mapping) and "from" in value[0]
        given = [*_system(row), *value] if shared else value
        messages = read_messages(given, row.place, column, self.notes)
        learnt = learnt_messages(messages, self.settings.learn, row.place, column, self.notes)
        return self._turn(row, messages[: learnt[-1] + 1] if learnt else messages, learnt)

    def pair(self, row: Row) -> Turn:
        prompt_column = self.settings.prompt_column or "prompt"
        column = self.settings.completion_column or "completion"
        prompt = self._cell(row, prompt_column, "prompt_column")
        completion = self._cell(row, column, "completion_column")
        if not self.settings.chat:
            return self._plain(row, prompt, completion, prompt_column, column)
        if row.values.get("system"):
            self.notes.count("a column `system` is not read beside `prompt`: write it as a message", row.place)
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": _asking(prompt, row.place, prompt_column)}]
        given = read_messages(prompt, row.place, prompt_column, self.notes)
        return self._turn(row, [*given, _answer(completion, row.place, column, self.notes)], (len(given),))

    def alpaca(self, row: Row) -> Turn:
        if not self.settings.chat:
            raise refused(
                "instruction", "used with `data.chat: true`", row.place, "chat: false",
                "join instruction and input into a column `prompt` yourself, as the tasks ask", f"{FIELD}.chat",
            )  # fmt: skip
        asked = _asking(self._cell(row, "instruction", "prompt_column"), row.place, "instruction")
        more = _optional(row, "input")
        question = {"role": "user", "content": f"{asked}\n\n{more}" if more.strip() else asked}
        messages = [*_system(row), *_history(row), question]
        answer = _answer(self._cell(row, "output", "completion_column"), row.place, "output", self.notes)
        given = read_messages(messages, row.place, "instruction", self.notes)
        return self._turn(row, [*given, answer], (len(given),))

    def text(self, row: Row) -> Turn:
        column = self.settings.text_column or "text"
        text = text_of(self._cell(row, column, "text_column"), row.place, column)
        if not text.strip():
            self.notes.count("an empty text is learnt", row.place)
        if self.settings.chat:
            self.notes.say(f"`{column}` is learnt as it is, without the chat template")
        return PlainText("", text, row.place, whole=True, known=self._known(row))

    def _turn(self, row: Row, messages: list[Message], learnt: tuple[int, ...]) -> Turn:
        for number in learnt:
            if empty(messages[number]):
                self.notes.count(EMPTY, row.place)
        for column in sorted(PICTURES & row.values.keys()):
            if row.values[column]:
                self.notes.count(f"a column `{column}` is not read: models of language alone see text", row.place)
        tools = _tools(row, self.settings.tools_column or "tools")
        answers = tuple(message_weight(messages[number]) for number in learnt)
        known = replace(self._known(row), answers=answers)
        return Conversation(tuple(messages), learnt, tools, _kwargs(row), row.place, known)

    def _plain(self, row: Row, prompt: Any, completion: Any, prompt_column: str, column: str) -> Turn:
        for name, value in ((prompt_column, prompt), (column, completion)):
            if not isinstance(value, str):
                raise refused(
                    name, "text where `data.chat` is false", row.place, value, "mend the row, or set `chat: true`"
                )
        if not completion.strip():
            self.notes.count(EMPTY, row.place)
        asked = _asking(prompt, row.place, prompt_column)
        answer = text_of(completion, row.place, column)
        return PlainText(asked, answer, row.place, known=self._known(row))

    def _known(self, row: Row) -> Known:
        columns = (self.settings.weight_column, self.settings.reference_logprob_column)
        values = {name: _parsed(row.values.get(name), row.place, name) for name in columns if name is not None}
        if (critical := self.settings.critical_column) is not None:
            values[critical] = self._cell(row, critical, "critical_column")
        return read_known(values, row.place, self.settings)

    def _cell(self, row: Row, column: str, key: str) -> Any:
        if column not in row.values:
            raise UserError(
                f"`{key}` must name a column of every row, but {row.place} has no column {column!r}; its columns are "
                f"{', '.join(map(str, row.values))}",
                field=f"{FIELD}.{key}",
            )
        return row.values[column]


EMPTY = "an empty completion is learnt, that is, to answer with nothing: leave the row out unless that is meant"
_MESSAGES = _Form({"messages_column": "messages"}, _Shape.messages)
_SHAREGPT = _Form({"messages_column": "conversations"}, partial(_Shape.messages, default="conversations"))
_PAIR = _Form({"prompt_column": "prompt", "completion_column": "completion"}, _Shape.pair)
_ALPACA = _Form({"prompt_column": "instruction", "completion_column": "output"}, _Shape.alpaca)
_TEXT = _Form({"text_column": "text"}, _Shape.text)
_KNOWN = (_MESSAGES, _SHAREGPT, _PAIR, _ALPACA, _TEXT)


def _named(settings: Source) -> _Form | None:
    """The shape whose columns the settings name. Raises UserError when they name those of two."""
    given = {
        _MESSAGES: [settings.messages_column],
        _PAIR: [settings.prompt_column, settings.completion_column],
        _TEXT: [settings.text_column],
    }
    named = [form for form, columns in given.items() if any(columns)]
    if len(named) > 1:
        keys = [" and ".join(f"`{key}`" for key in form.defaults) for form in named]
        raise UserError(
            f"{keys[0]} excludes {keys[1]}; keep one of the two forms",
            field=f"{FIELD}.{next(iter(named[0].defaults))}",
        )
    return named[0] if named else None


def _asking(value: Any, place: str, column: str) -> str:
    """Text that asks something."""
    text = text_of(value, place, column) if isinstance(value, str) else None
    if text is None or not text.strip():
        rule = "text or a list of {role, content}, and not empty"
        raise refused(column, rule, place, value, "mend the row, or use a column `text` to learn whole texts")
    return text


def _answer(value: Any, place: str, column: str, notes: Notes) -> Message:
    if isinstance(value, str):
        return {"role": "assistant", "content": text_of(value, place, column)}
    messages = read_messages(value, place, column, notes)
    if [message["role"] for message in messages] != ["assistant"]:
        raise refused(
            column, "text or one assistant message", place, [message["role"] for message in messages],
            "put the earlier turns into the prompt", f"{FIELD}.completion_column",
        )  # fmt: skip
    return messages[0]


def _optional(row: Row, column: str) -> str:
    """The text of a column that not every row has."""
    value = row.values.get(column)
    return "" if value is None else text_of(value, row.place, column)


def _system(row: Row) -> list[Message]:
    text = _optional(row, "system")
    return [{"role": "system", "content": text}] if text.strip() else []


def _history(row: Row) -> list[Message]:
    """Earlier turns of an Alpaca row: pairs of question and answer."""
    pairs = row.values.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise refused("history", "pairs of question and answer", row.place, pairs, "mend the row")
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def _tools(row: Row, column: str) -> tuple[Mapping[str, Any], ...] | None:
    value = _parsed(row.values.get(column), row.place, column)
    if not value:
        return None
    tools = tuple(_parsed(each, row.place, column) for each in value) if isinstance(value, list) else (None,)
    if not all(isinstance(each, Mapping) for each in tools):
        remedy = "mend the row, or name another column in `data.tools_column`"
        raise refused(column, "a list of tools, each an object", row.place, value, remedy)
    return tools


def _kwargs(row: Row) -> Mapping[str, Any]:
    value = _parsed(row.values.get(KWARGS_COLUMN), row.place, KWARGS_COLUMN) or {}
    if not isinstance(value, Mapping) or RESERVED & value.keys():
        rule = f"an object of the template's variables, without {', '.join(sorted(RESERVED))}"
        raise refused(KWARGS_COLUMN, rule, row.place, value, "mend the row")
    return value


def _parsed(value: Any, place: str, column: str) -> Any:
    """A value that tables, whose columns have one type, hold as JSON."""
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise refused(column, f"JSON where it is text ({error})", place, value, "mend the row") from None
