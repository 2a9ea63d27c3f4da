"""From a problem to prompt tokens, and which tokens end an answer."""

from __future__ import annotations

from typing import Any

from ...spaces.errors import UserError
from ...trainers.models import tokens
from ...trainers.models.tokens import around, without


def render(tokenizer: Any, prompt: str, *, chat: bool) -> str:
    """The text a model continues: the user message through the chat template, or the prompt as it is."""
    if not chat:
        return prompt
    require_chat_template(tokenizer)
    message = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def encode(tokenizer: Any, text: str, *, chat: bool) -> tuple[int, ...]:
    """Token ids of a rendered prompt. A chat template writes its special tokens itself; plain text gets the usual ones
    before it, and none behind it: the answer goes on from there."""
    ids = tokenizer(text, add_special_tokens=not chat)["input_ids"]
    ids = tuple(ids if chat else without(ids, around(tokenizer)[1]))
    if not ids:
        raise UserError("A prompt must have at least one token, but got an empty one; write a template with text in it")
    return ids


def end_tokens(model: Any, tokenizer: Any, *, chat: bool = False) -> frozenset[int]:
    """Ids that end a completion, as for training (`trainers/models/tokens.py`).

    Raises UserError for `chat` without a chat template.
    """
    if chat:
        require_chat_template(tokenizer)
    return tokens.end_tokens(model, tokenizer, chat=chat)


def require_chat_template(tokenizer: Any) -> None:
    """Raise UserError when the tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "A task with `chat: true` needs a tokenizer with a chat template, but the tokenizer has none; "
            "set the model's `chat_template` to a Jinja file, or the task's `chat: false`"
        )
