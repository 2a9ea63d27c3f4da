"""From a row of text to tokens: chat template, completion mask, critical spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ...spaces.errors import UserError
from ..models.tokens import around, end_of_sequence, without
from .demonstrations import Demonstration

Message = Mapping[str, Any]
Span = tuple[int, int]


@dataclass(frozen=True)
class Turn:
    """A demonstration as text: what is given and what is to be learnt."""

    prompt: tuple[Message, ...] | str
    """Messages, or plain text where the data is not a conversation."""
    completion: str
    """Content of the answer."""
    critical: tuple[Span, ...] | None = None
    """Character spans of `completion`."""


@dataclass(frozen=True)
class RenderedTurn:
    """A demonstration as the characters the model sees."""

    text: str
    prompt_end: int
    """Characters of the prompt, the header of the answer included."""
    critical: tuple[Span, ...] | None
    """Character spans of `text`."""


def require_chat_template(tokenizer: PreTrainedTokenizerBase, field: str = "model.chat_template") -> None:
    """Raise UserError when the tokenizer cannot render a conversation."""
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of `{tokenizer.name_or_path}` must have a chat template, but it has none; point "
            f"`{field}` at a file with a Jinja template, or set `chat: false` to train on plain text",
            field=field,
        )


def render(tokenizer: PreTrainedTokenizerBase, turn: Turn) -> RenderedTurn:
    """Text of a turn. Conversations go through the chat template; plain text ends with the end-of-sequence token."""
    if isinstance(turn.prompt, str):
        end = end_of_sequence(tokenizer)
        text = turn.prompt + turn.completion + ("" if end is None else str(tokenizer.convert_ids_to_tokens(end)))
        critical = None if turn.critical is None else _shifted(turn.critical, len(turn.prompt))
        return RenderedTurn(text, len(turn.prompt), critical)
    messages = [dict(message) for message in turn.prompt]
    prompt = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    answer = {"role": "assistant", "content": turn.completion}
    text = str(tokenizer.apply_chat_template([*messages, answer], tokenize=False))
    if not text.startswith(prompt):
        raise UserError(
            "the chat template must render a conversation so that it starts with its own generation prompt, but got "
            f"{text[: len(prompt) + 20]!r} for the prompt {prompt!r}; give another template in `model.chat_template`",
            field="model.chat_template",
        )
    return RenderedTurn(text, len(prompt), _critical_in_text(turn, text, len(prompt)))


def tokenize(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[Demonstration]:
    """Demonstrations of a list of turns.

    The prompt's tokens are exactly those that generation starts from: where tokenising prompt and answer together
    would merge characters across the border, the two parts are tokenised apart.
    """
    rendered = [render(tokenizer, turn) for turn in turns]
    plain = [isinstance(turn.prompt, str) for turn in turns]
    if any(plain) != all(plain):
        raise UserError("demonstrations must be either all conversations or all plain text; split the data set")
    marked = any(turn.critical is not None for turn in turns)
    encoder = _Encoder(tokenizer, add_special_tokens=all(plain), offsets=marked)
    together = encoder([item.text for item in rendered])
    prompts = encoder([item.text[: item.prompt_end] for item in rendered])
    return [
        encoder.demonstration(item, ids, prompt_ids)
        for item, ids, prompt_ids in zip(rendered, together, prompts, strict=True)
    ]


@dataclass(frozen=True)
class _Encoding:
    ids: list[int]
    offsets: list[Span] | None


@dataclass(frozen=True)
class _Encoder:
    tokenizer: PreTrainedTokenizerBase
    add_special_tokens: bool
    offsets: bool

    def __call__(self, texts: list[str], add_special_tokens: bool | None = None) -> list[_Encoding]:
        if not texts:
            return []
        special = self.add_special_tokens if add_special_tokens is None else add_special_tokens
        encoded = self.tokenizer(
            texts, add_special_tokens=special, return_offsets_mapping=self.offsets, return_attention_mask=False
        )
        offsets = encoded["offset_mapping"] if self.offsets else [None] * len(texts)
        tail = around(self.tokenizer)[1] if special else []
        found = [without(ids, tail) for ids in encoded["input_ids"]]
        return [
            _Encoding(ids, None if spans is None else spans[: len(ids)])
            for ids, spans in zip(found, offsets, strict=True)
        ]

    def demonstration(self, item: RenderedTurn, together: _Encoding, prompt: _Encoding) -> Demonstration:
        num_prompt = len(prompt.ids)
        if together.ids[:num_prompt] != prompt.ids:
            together = self._apart(item, prompt)
        completion = torch.arange(len(together.ids)) >= num_prompt
        critical = None
        if item.critical is not None:
            assert together.offsets is not None
            critical = torch.tensor([_overlaps(span, item.critical) for span in together.offsets]) & completion
        return Demonstration(torch.tensor(together.ids, dtype=torch.int32), completion, critical)

    def _apart(self, item: RenderedTurn, prompt: _Encoding) -> _Encoding:
        answer = self([item.text[item.prompt_end :]], add_special_tokens=False)[0]
        offsets = None
        if prompt.offsets is not None and answer.offsets is not None:
            offsets = [*prompt.offsets, *_shifted(answer.offsets, item.prompt_end)]
        return _Encoding(prompt.ids + answer.ids, offsets)


def _critical_in_text(turn: Turn, text: str, prompt_end: int) -> tuple[Span, ...] | None:
    if turn.critical is None:
        return None
    stripped = turn.completion.strip()  # many templates trim the content
    start = text.find(stripped, prompt_end) - (len(turn.completion) - len(turn.completion.lstrip()))
    return _shifted(turn.critical, start)


def _shifted(spans: Iterable[Span], by: int) -> tuple[Span, ...]:
    return tuple((start + by, end + by) for start, end in spans)


def _overlaps(token: Span, spans: tuple[Span, ...]) -> bool:
    return any(token[0] < end and start < token[1] for start, end in spans)
