"""What differs between learning and scoring: a model is asked as its demonstrations ask, or somebody should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...trainers.data.demonstrations import Demonstrations
from ...trainers.data.style import Style
from ...trainers.settings import TrainingSettings
from ..settings import FROM_DEMONSTRATIONS, EvaluationSettings, TaskSettings
from .asking import system_of


def warnings(
    data: Demonstrations,
    problems: Sequence[str],
    training: TrainingSettings,
    evaluation: EvaluationSettings | None,
) -> list[str]:
    """Everything worth a look before a night is spent, a sentence each; `problems`: what was said of their files."""
    found = [*data.notes, *problems]
    if training.effective_batch > len(data):
        found.append(
            f"`training.effective_batch` is {training.effective_batch}, more than the {len(data)} demonstrations: "
            "every step learns some of them several times"
        )
    said = [line for task in _tasks(evaluation) for line in differences(task, data.style)]
    return list(dict.fromkeys([*found, *said]))


def _tasks(evaluation: EvaluationSettings | None) -> list[TaskSettings]:
    if evaluation is None:
        return []
    return [*evaluation.tasks, *(evaluation.retention.tasks if evaluation.retention is not None else ())]


def differences(task: TaskSettings, style: Style) -> Iterator[str]:
    """How a task asks otherwise than the demonstrations."""
    name = f"task {task.title}"
    if task.chat != style.chat:
        ways = {True: "through the chat template", False: "as plain text"}
        yield (
            f"demonstrations are learnt {ways[style.chat]}, but {name} is asked {ways[task.chat]}: set `data.chat` and "
            "the task's `chat` alike"
        )
        return
    if not task.chat:
        return
    if task.system == FROM_DEMONSTRATIONS and style.system is None and style.systems:
        yield (
            f"demonstrations begin with {style.systems} different system messages (or none), but {name} is asked "
            "without one: give it a `system`"
        )
    elif task.system != FROM_DEMONSTRATIONS and system_of(task, style) != style.system:
        yield f"{name} is asked with another system message than the demonstrations"
    if style.differing_kwargs or (task.chat_template_kwargs not in (None, dict(style.template_kwargs))):
        yield f"{name} is asked with other variables of the chat template than (some of) the demonstrations"
    if style.tools:
        yield f"demonstrations show tools, but {name} is asked without any"
