"""From a problem to prompt tokens, and which tokens end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from typing import Any

from ...spaces.errors import UserError
from ...trainers.data.template import STRUCTURE, ChatTemplate
from ...trainers.models import tokens
from ...trainers.models.tokens import around, without
from ..problems.load import Problem


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


def structured(tokenizer: Any, problems: Iterable[Problem]) -> list[str]:
    """What to say of questions whose text holds tokens that the chat template writes around messages."""
    asked = [problem for problem in problems if problem.chat]
    if not asked or not tokenizer.chat_template:
        return []
    template = chat_template(tokenizer, str(tokenizer.chat_template), asked[0].asking.day or date.today())
    counts = {token: sum(token in problem.prompt for problem in asked) for token in template.own_tokens}
    return [f"{count} question(s) hold {token!r}, {STRUCTURE}" for token, count in counts.items() if count]


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
