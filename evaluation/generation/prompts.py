"""From a problem to prompt tokens, and which tokens end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...spaces.errors import UserError

_ANSWER = "the answer"


def render(tokenizer: Any, prompt: str, *, chat: bool) -> str:
    """The text a model continues: the user message through the chat template, or the prompt as it is."""
    if not chat:
        return prompt
    require_chat_template(tokenizer)
    message = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def encode(tokenizer: Any, text: str, *, chat: bool) -> tuple[int, ...]:
    """Token ids of a rendered prompt. A chat template writes its special tokens itself; plain text gets the usual."""
    ids = tuple(tokenizer(text, add_special_tokens=not chat)["input_ids"])
    if not ids:
        raise UserError("A prompt must have at least one token, but got an empty one; write a template with text in it")
    return ids


def end_tokens(model: Any, tokenizer: Any, *, chat: bool = False) -> frozenset[int]:
    """Ids that end a completion: the model's and the tokenizer's end of sequence, and the chat template's end of turn.

    A base model's end of sequence often is not what its chat template writes after an answer; without the latter a
    model fine-tuned through the template would never be seen to stop.
    """
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = set(declared if isinstance(declared, Iterable) else [declared]) | {tokenizer.eos_token_id}
    if chat:
        ids.add(_end_of_turn(tokenizer))
    return frozenset(int(token) for token in ids if token is not None)


def require_chat_template(tokenizer: Any) -> None:
    """Raise UserError when the tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "A task with `chat: true` needs a tokenizer with a chat template, but the tokenizer has none; "
            "set the model's `chat_template` to a Jinja file, or the task's `chat: false`"
        )


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token that the chat template writes right after an assistant's message, if there is one."""
    require_chat_template(tokenizer)
    turns = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _ANSWER}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    _, found, rest = text.rpartition(_ANSWER)
    ids = tokenizer(rest.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", ()))
    return ids[0] if ids and ids[0] in special else None
