"""What comes before a question: the system message and worked examples, by default as the demonstrations have them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import Field

from ...spaces.errors import UserError
from ...spaces.settings import Settings
from ...trainers.data.style import MOST_EXAMPLES, Style
from ..settings import FROM_DEMONSTRATIONS, TaskSettings
from .prompting import fill

Turns = tuple[dict[str, str], ...]


class Asking(Settings):
    """How the problems of a task are asked, apart from the question itself."""

    turns: Turns = ()
    """Messages before the question."""
    variables: dict[str, Any] = Field(default_factory=dict)
    """Of the chat template."""
    day: date | None = None
    """What the chat template prints as today; None: today."""


def asking_of(task: TaskSettings, style: Style) -> Asking:
    """`style`: that of the demonstrations. Raises UserError when these cannot give the examples that are asked for."""
    if not task.chat:
        return Asking(day=style.day)
    system = system_of(task, style)
    opening: Turns = () if system is None else ({"role": "system", "content": system},)
    variables = style.template_kwargs if task.chat_template_kwargs is None else task.chat_template_kwargs
    return Asking(turns=(*opening, *_examples(task, style)), variables=dict(variables), day=style.day)


def system_of(task: TaskSettings, style: Style) -> str | None:
    """The system message of a task, None where it has none."""
    if task.system == FROM_DEMONSTRATIONS:
        return style.system
    return task.system


def _examples(task: TaskSettings, style: Style) -> Turns:
    if not isinstance(task.few_shot, int):
        pairs = [(fill(task, {"question": shot.question}, ""), shot.answer) for shot in task.few_shot]
    elif task.few_shot <= min(MOST_EXAMPLES, len(style.examples)):
        pairs = list(style.examples[: task.few_shot])
    else:
        raise UserError(
            f"`few_shot` must be at most {min(MOST_EXAMPLES, len(style.examples))}, the demonstrations of one question "
            f"and one answer, but got {task.few_shot} for {task.title}; write worked examples down instead",
            field="evaluation.tasks",
        )
    turns: list[Mapping[str, str]] = []
    for asked, said in pairs:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return tuple(dict(turn) for turn in turns)
