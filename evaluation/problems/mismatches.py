"""What differs between learning and scoring: a model is asked as its demonstrations ask, or somebody should know."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ...trainers.data.demonstrations import Demonstration, Demonstrations
from ...trainers.data.style import Frame, Style, beginning, ending
from ...trainers.data.tokenization import SEAM
from ...trainers.settings import TrainingSettings
from ..settings import FROM_DEMONSTRATIONS, EvaluationSettings, TaskSettings
from .asking import system_of
from .load import Problem, label
from .suites import resolve

Kind = Literal[
    "template", "system message", "template variables", "tools", "worked examples", "wording", "seam", "end", "length"
]
MOST_LOOKED_AT = 512
"""Demonstrations whose answers are looked at, evenly spread."""
RARE = 0.05
"""Share of answers that may be cut off without a word."""

WORDS = {"begins": 5, "ends": 3}
"""Words that all questions share at their beginning, or end, without any that is a format: many are no accident."""
UNSPACED = 8
"""Letters of a script without spaces that are as much."""


@dataclass(frozen=True)
class Difference:
    """One thing that a model learns in one way and is asked in another."""

    kind: Kind
    said: str
    """A sentence for people."""


def warnings(
    data: Demonstrations, problems: Sequence[str], training: TrainingSettings, found: Iterable[Difference]
) -> list[str]:
    """Everything worth a look before a night is spent, a sentence each; `problems`: what was said of their files."""
    said = [*data.notes, *problems]
    if training.effective_batch > len(data):
        said.append(
            f"`training.effective_batch` is {training.effective_batch}, more than the {len(data)} demonstrations: "
            "every step learns some of them several times"
        )
    return list(dict.fromkeys([*said, *(each.said for each in found)]))


def all_differences(
    data: Demonstrations,
    problems: Sequence[Problem],
    evaluation: EvaluationSettings | None,
    tokenizer: Any,
    ends: Collection[int],
) -> list[Difference]:
    """Everything that differs between learning the demonstrations and answering the problems, each once.

    `ends`: ids that end a completion.
    """
    found = [Difference("seam", note) for note in data.notes if note.startswith(SEAM)]
    for task in _tasks(evaluation):
        found += differences(task, data.style)
        if task.source == "lm_eval":  # its wording is the library's own, to be compared with others' scores
            continue
        found += _wording(task, data.style, [each.prompt for each in problems if each.task == label(task)])
    if evaluation is not None:
        found += _cut_off(data, evaluation, tokenizer, ends)
    return list(dict.fromkeys(found))


def _tasks(evaluation: EvaluationSettings | None) -> list[TaskSettings]:
    if evaluation is None:
        return []
    kept = evaluation.retention.tasks if evaluation.retention is not None else ()
    return [resolve(task) for task in (*evaluation.tasks, *kept)]


def differences(task: TaskSettings, style: Style) -> Iterator[Difference]:
    """How the settings of a task ask otherwise than the demonstrations."""
    name = f"task {task.title}"
    if task.chat != style.chat:
        ways = {True: "through the chat template", False: "as plain text"}
        own = "`config.apply_chat_template`" if task.source == "lm_eval" else "`chat`"
        yield Difference(
            "template",
            f"demonstrations are learnt {ways[style.chat]}, but {name} is asked {ways[task.chat]}: set `data.chat` and "
            f"the task's {own} alike",
        )
    if task.chat != style.chat or task.source == "lm_eval":
        return
    if shown := len(task.shots) + (task.few_shot if isinstance(task.few_shot, int) else len(task.few_shot)):
        yield Difference(
            "worked examples",
            f"{name} is asked behind {shown} worked example(s), demonstrations are learnt on their own",
        )
    if not task.chat:
        return
    if task.system == FROM_DEMONSTRATIONS and style.system is None and style.systems:
        yield Difference(
            "system message",
            f"demonstrations begin with {style.systems} different system messages (or none), but {name} is asked "
            "without one: give it a `system`",
        )
    elif task.system != FROM_DEMONSTRATIONS and system_of(task, style) != style.system:
        yield Difference("system message", f"{name} is asked with another system message than the demonstrations")
    if style.differing_kwargs or (task.chat_template_kwargs not in (None, dict(style.template_kwargs))):
        yield Difference(
            "template variables",
            f"{name} is asked with other variables of the chat template than (some of) the demonstrations",
        )
    if style.tools:
        yield Difference("tools", f"demonstrations show tools, but {name} is asked without any")


def _wording(task: TaskSettings, style: Style, prompts: Sequence[str]) -> Iterator[Difference]:
    """What a task writes around every question, and what all demonstrations do, where only one of the two does."""
    name, theirs = f"task {task.title}", (style.opening, style.closing)
    for verb, own, known in zip(WORDS, _around(task.template), theirs, strict=True):
        if own and own not in known:
            yield Difference(
                "wording", f"every prompt of {name} {verb} with {_short(own)}, which not all demonstrations do"
            )
    if not prompts:
        return
    asked = Frame(prompts)
    opening, closing = beginning(style.opening, asked.opening), ending(style.closing, asked.closing)
    alone = (style.opening[len(opening) :], style.closing[: len(style.closing) - len(closing)])
    for (verb, words), own in zip(WORDS.items(), alone, strict=True):
        if _telling(own, words):
            yield Difference(
                "wording", f"what every demonstration asks {verb} with {_short(own)}, not so the prompts of {name}"
            )


def _around(template: str) -> tuple[str, str]:
    """What a prompt's template writes before its first column and behind its last."""
    parts = re.split(r"\{[A-Za-z_][\w.]*\}", template)
    return parts[0].strip(), parts[-1].strip() if len(parts) > 1 else ""


def _telling(text: str, words: int) -> bool:
    """Whether text that questions share is more than what they happen to have alike: a format, or so many words."""
    found = re.findall(r"[^\W\d_]{2,}", text)
    unspaced = any(len(word) >= UNSPACED and not word.isascii() for word in found)
    return bool(text.strip()) and ("\n" in text or ":" in text or len(found) >= words or unspaced)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:38]} ... {text[-38:]}")


def _cut_off(
    data: Demonstrations, evaluation: EvaluationSettings, tokenizer: Any, ends: Collection[int]
) -> Iterator[Difference]:
    """Answers that are learnt, but that no completion can hold: it ends before they do."""
    asked = [each for each in data[:: max(1, len(data) // MOST_LOOKED_AT)] if not bool(each.learnt[1:].all())]
    answers = [answer for each in asked for answer in _answers(each)]
    limit, lengths = evaluation.max_new_tokens, sorted(map(len, answers))
    longer = sum(length > limit for length in lengths)
    if longer > RARE * len(answers):
        yield Difference(
            "length",
            f"{100 * longer / len(answers):.0f} % of the answers that are learnt have more tokens than "
            f"`evaluation.max_new_tokens` ({limit}) lets a model write (median {lengths[len(lengths) // 2]}, longest "
            f"{lengths[-1]})",
        )
    for stop in evaluation.stop:
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        inside = sum(stop in text.strip().removesuffix(stop) for text in texts)
        yield from _going_on(inside, len(answers), f"the text {stop!r}, at which `evaluation.stop` ends a completion")
    behind = [tokens for answer in answers if (tokens := _behind(answer, ends)) and tokenizer.decode(tokens).strip()]
    if behind:
        named = ", ".join(repr(tokenizer.convert_ids_to_tokens(each)) for each in sorted(ends))
        yield from _going_on(len(behind), len(answers), f"a token that ends a completion ({named})")


def _going_on(count: int, of: int, what: str) -> Iterator[Difference]:
    if count:
        yield Difference("end", f"{count} of {of} answers that are learnt go on behind {what}")


def _behind(answer: Sequence[int], ends: Collection[int]) -> Sequence[int]:
    """What comes behind the first token that ends a completion."""
    first = next((number for number, token in enumerate(answer) if token in ends), len(answer))
    return answer[first + 1 :]


def _answers(example: Demonstration) -> Iterator[list[int]]:
    """Token ids of each answer of a demonstration."""
    ids, learnt = example.token_ids, example.learnt.to(torch.int8)
    borders = torch.diff(learnt, prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return (ids[start:end].tolist() for start, end in zip(borders[::2], borders[1::2], strict=True))
