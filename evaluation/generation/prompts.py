"""From a problem to prompt tokens, and which tokens end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from typing import Any

from ...spaces.errors import UserError
from ...trainers.data.template import ChatTemplate
from ..problems.load import Problem

_ANSWER = "the answer"


def render(tokenizer: Any, problem: Problem) -> str:
    """The text a model continues: the messages up to the question through the chat template, or the prompt as it is.

    Raises UserError, naming the problem, for whatever the template raises.
    """
    if not problem.chat:
        return problem.prompt
    require_chat_template(tokenizer)
    asking, messages = problem.asking, [*problem.asking.turns, {"role": "user", "content": problem.prompt}]
    place = f"a problem of task {problem.task}, {problem.prompt[:60]!r}"
    template = chat_template(tokenizer, str(tokenizer.chat_template), asking.day or date.today())
    return template.render(messages, asking=True, place=place, variables=asking.variables)


@lru_cache(maxsize=8)
def chat_template(tokenizer: Any, source: str, day: date) -> ChatTemplate:
    """The chat template of a tokenizer, made once as long as its `source` stays."""
    return ChatTemplate(tokenizer, day)


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
    template = chat_template(tokenizer, str(tokenizer.chat_template), date.today())
    text = template.render(turns, asking=False, place="a question with its answer")
    _, found, rest = text.rpartition(_ANSWER)
    ids = tokenizer(rest.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", ()))
    return ids[0] if ids and ids[0] in special else None
