"""A tokenizer's chat template: what it is given, and what to say when it cannot render that.

transformers renders. Added here: the study's date instead of today's, variables of the study and of a row, parts of
text for templates that read nothing else, and a message with the place for whatever a template raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from ...spaces.errors import UserError
from ..models.tokens import special_ids
from .messages import Message, dropped, lacking, unwritten
from .notes import Notes
from .shapes import RESERVED
from .turns import Conversation, Known, Span, check_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_FIELD = "model.chat_template"
NOW = "strftime_now"
"""The function that transformers gives to templates which print a date."""
PROBE = "a probe of the template"
STRUCTURE = "which becomes a token of the chat template: it may end or begin a turn"


def require_chat_template(tokenizer: PreTrainedTokenizerBase, field: str = TEMPLATE_FIELD) -> None:
    """Raise UserError when the tokenizer cannot render a conversation."""
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of `{tokenizer.name_or_path}` must have a chat template, but it has none; point "
            f"`{field}` at a file with a Jinja template, or set `chat: false` to train on plain text",
            field=field,
        )


@dataclass(frozen=True)
class RenderedTurn:
    """A demonstration as the characters the model sees."""

    text: str
    learnt: tuple[Span, ...]
    """Character spans with a loss, rising; each starts where generation would."""
    place: str = ""
    plain: bool = False
    """Whether the tokenizer adds its own special tokens."""
    known: Known = field(default_factory=Known)
    """What the row says of its tokens, spans in characters of `text`."""


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer on one day, with the variables that every conversation gets."""

    tokenizer: PreTrainedTokenizerBase
    day: date
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(
        self,
        messages: Sequence[Message],
        *,
        asking: bool,
        place: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Text of a conversation; `asking` ends it with the header of an answer to come.

        Raises UserError, naming `place`, for whatever the template raises.
        """
        require_chat_template(self.tokenizer)
        refuse_reserved(self.variables, "data.chat_template_kwargs")
        given = [_as_parts(message) if self._takes_parts else dict(message) for message in messages]
        try:
            return self._rendered(given, asking, tools, {**self.variables, **(variables or {})})
        except Exception as error:  # templates raise what they like, and Python adds its own
            raise _refusal(self.tokenizer, error, place) from error

    def turns(self, conversation: Conversation, notes: Notes) -> list[RenderedTurn]:
        """A demonstration as text. Where a template shortens earlier answers, each learnt answer is a text of its own.

        Raises UserError when an answer, or the tools, are not in the text that the template makes of them.
        """
        borders = [self._borders(conversation, number) for number in conversation.learnt]
        if not borders:
            return [RenderedTurn("", (), place=conversation.place)]
        for number, (prompt, text) in zip(conversation.learnt, borders, strict=True):
            for key in unwritten(conversation.messages[number], text[len(prompt) :]):
                notes.count(f"the key `{key}` of an answer is not in what its chat template writes", conversation.place)
        self._note_messages(conversation, borders[-1][0], notes)
        whole = borders[-1][1]
        if all(whole.startswith(text) for _, text in borders):
            return [self._turn(conversation, borders, conversation.known)]
        _refuse_by_token(conversation)
        return [
            self._turn(conversation, [each], replace(conversation.known, answers=(weight,)))
            for each, weight in zip(borders, conversation.known.answers, strict=True)
        ]

    def _note_messages(self, conversation: Conversation, prompt: str, notes: Notes) -> None:
        """Say what a model never sees of the messages before the last answer, and which text turns into structure."""
        for message in conversation.messages[: conversation.learnt[-1]]:
            for key in dropped(message, prompt):
                whose = f"the key `{key}` of a message of role `{message['role']}`"
                notes.count(f"{whose} is not in what the chat template writes", conversation.place)
        for message in conversation.messages:
            for token in self.own_tokens:
                if token in message["content"]:
                    notes.count(f"the text of a message holds {token!r}, {STRUCTURE}", conversation.place)

    def unread(self) -> list[str]:
        """Variables that every conversation gets and the template never names."""
        source = str(self.tokenizer.chat_template or "")
        return [name for name in self.variables if re.search(rf"\b{re.escape(name)}\b", source) is None]

    @cached_property
    def own_tokens(self) -> tuple[str, ...]:
        """Special tokens that the template writes around any message."""
        special = [str(self.tokenizer.convert_ids_to_tokens(token)) for token in special_ids(self.tokenizer)]
        try:
            text = self.render([{"role": "user", "content": PROBE}], asking=True, place=PROBE)
        except UserError:  # it wants more than a question; then nothing is known of it
            text = ""
        return tuple(sorted(token for token in special if token in text))

    def _turn(self, conversation: Conversation, borders: Sequence[tuple[str, str]], known: Known) -> RenderedTurn:
        text = borders[-1][1]
        spans = tuple((len(prompt), len(upto)) for prompt, upto in borders)
        if known.marks:
            known = known.moved(_content_start(conversation, text, spans[-1][0]))
        return RenderedTurn(text, spans, conversation.place, known=known)

    def _borders(self, conversation: Conversation, number: int) -> tuple[str, str]:
        """The text before an answer, as generation sees it, and the text up to its end."""
        messages, place = conversation.messages, conversation.place
        render = partial(self.render, place=place, tools=conversation.tools, variables=conversation.template_kwargs)
        prompt, text = render(messages[:number], asking=True), render(messages[: number + 1], asking=False)
        if not text.startswith(prompt):
            raise UserError(
                "the chat template must render a conversation so that it starts with its own generation prompt, but "
                f"for {place} got {text[: len(prompt) + 20]!r} for the prompt {prompt!r}; give another template in "
                f"`{TEMPLATE_FIELD}`, or other variables in `data.chat_template_kwargs`",
                field=TEMPLATE_FIELD,
            )
        _refuse_lost(conversation, messages[number], text, len(prompt))
        return prompt, text

    def _rendered(
        self, messages: list[Any], asking: bool, tools: Sequence[Mapping[str, Any]] | None, variables: Mapping[str, Any]
    ) -> str:
        given: list[Any] | None = None if tools is None else [dict(tool) for tool in tools]
        source = self.tokenizer.get_chat_template(None, given)
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                tools=given,
                chat_template=dated(source, self.day),
                add_generation_prompt=asking,
                tokenize=False,
                **variables,
            )
        )

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template reads content only as a list of parts."""
        return not self._shows(PROBE) and self._shows([{"type": "text", "text": PROBE}])

    def _shows(self, content: Any) -> bool:
        try:
            text = self._rendered([{"role": "user", "content": content}], False, None, self.variables)
            before, found, _ = text.partition(PROBE)
            return bool(found) and re.search(r"""['"]text['"]\s*:\s*['"]$""", before) is None  # as code is no reading
        except Exception:  # a template may want more than one message; then plain text is what it reads
            return isinstance(content, str)


@lru_cache(maxsize=8)
def dated(source: str, day: date) -> str:
    """A template that prints `day` where it would print today, at midnight."""
    if NOW not in source:
        return source
    letters = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
    forms = [f"%{flag}{letter}" for flag in ("-", "_", "0", "^", "#", "") for letter in letters]
    pairs = ", ".join(f"({_literal(form)}, {_literal(_form_of(day, form))})" for form in forms)
    body = (
        f"{{% set so_far = namespace(text=format | replace('%%', '\\x00')) %}}{{% for form, said in [{pairs}] %}}"
        "{% set so_far.text = so_far.text | replace(form, said) %}{% endfor %}{{ so_far.text | replace('\\x00', '%') }}"
    )
    return f"{{% macro {NOW}(format) %}}{body}{{% endmacro %}}\n{source}"  # the line feed goes with the block


def _form_of(day: date, form: str) -> str:
    try:
        return day.strftime(form)
    except ValueError:
        return form


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t") + "'"


def _as_parts(message: Message) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _refuse_lost(conversation: Conversation, answer: Message, text: str, start: int) -> None:
    """Raise UserError when something of a demonstration would be lost between its row and its text."""
    learnt, tools = text[start:], conversation.tools or ()
    lost = lacking(answer, learnt)
    if lost is not None:
        raise UserError(
            f"the chat template must render every answer whole, but what it makes of {conversation.place} does not "
            f"hold {lost}: {learnt[:200]!r}; give a template in `{TEMPLATE_FIELD}` that renders it, or take it out of "
            "the row",
            field=TEMPLATE_FIELD,
        )
    names = [name for tool in tools if isinstance(name := _tool_name(tool), str)]
    missing = [name for name in names if name not in text[:start]]
    if missing:
        raise UserError(
            f"the chat template must render the tools of a conversation, but what it makes of {conversation.place} "
            f"does not hold {missing[0]!r}; give a template in `{TEMPLATE_FIELD}` that renders tools, or name another "
            "column in `data.tools_column`",
            field=TEMPLATE_FIELD,
        )


def _tool_name(tool: Mapping[str, Any]) -> Any:
    inner = tool.get("function")
    return (inner if isinstance(inner, Mapping) else tool).get("name")


def _refuse_by_token(conversation: Conversation) -> None:
    """Raise UserError for numbers by token where one row becomes several texts."""
    if conversation.known.by_token:
        raise UserError(
            f"numbers for each token need one text a row, but the template makes {len(conversation.learnt)} of "
            f"{conversation.place}, one an answer; set `data.learn: last`, or give a weight for each message",
            field="data.learn",
        )


def _content_start(conversation: Conversation, text: str, start: int) -> int:
    """Where in `text` the last answer's content begins, for what is marked in it; `start`: where the answer does."""
    content = conversation.messages[conversation.learnt[-1]]["content"]
    stripped = content.strip()  # many templates trim the content
    found = text.find(stripped, start)
    if found < 0:
        key = next(iter(conversation.known.marks))
        raise UserError(
            f"`{key}` must mark characters that the chat template renders as they are, but what it makes of "
            f"{conversation.place} holds {stripped[:60]!r} with other white space; give another template in "
            f"`{TEMPLATE_FIELD}`",
            field=f"data.{key}",
        )
    check_spans(conversation.known, content, conversation.place)
    return found - (len(content) - len(content.lstrip()))


def refuse_reserved(variables: Mapping[str, Any], where: str) -> None:
    """Raise UserError for names that are no free variables of a template."""
    if reserved := sorted(RESERVED & variables.keys()):
        raise UserError(
            f"`{where}` must hold free variables of the chat template, but got `{reserved[0]}`, which rendering sets; "
            "remove it",
            field=where,
        )


def _refusal(tokenizer: PreTrainedTokenizerBase, error: Exception, place: str) -> UserError:
    said, template = f"{type(error).__name__}: {error}", tokenizer.chat_template
    if isinstance(error, UserError):
        return error
    if isinstance(template, dict) and "default" not in template:
        return UserError(
            f"the tokenizer of `{tokenizer.name_or_path}` must have one chat template, or one named default, but it "
            f"has {', '.join(sorted(template))}; point `{TEMPLATE_FIELD}` at a file with the one you mean",
            field=TEMPLATE_FIELD,
        )
    if type(error).__name__ == "TemplateSyntaxError":
        return UserError(
            f"the chat template must be a Jinja template, but it cannot be read ({said}); mend it, or give another in "
            f"`{TEMPLATE_FIELD}`",
            field=TEMPLATE_FIELD,
        )
    return UserError(
        f"the chat template must render every conversation, but it refuses {place} ({said}); mend the row or leave it "
        f"out, set the variable in `data.chat_template_kwargs`, or give another template in `{TEMPLATE_FIELD}`",
        field=TEMPLATE_FIELD,
    )
