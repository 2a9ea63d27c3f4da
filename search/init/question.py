"""Questions on a terminal, for what is missing; nobody is asked where there is no terminal, or with `--yes`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from rich.console import Console

from ...spaces.errors import UserError
from .paths import only_one, require_given, require_there

MENDED = {
    "data.prompt_column": (("prompt_column", "Column that asks"), ("completion_column", "Column that answers")),
    "evaluation.tasks": (("tasks", "Problems with known answers (a file, a suite (gsm8k), gym:NAME or lm_eval:NAME)"),),
    "evaluation.kind": (("kind", "How answers are compared (math, numeric, choice, exact)"),),
}
"""Faults that an answer mends, by their field: which options, and what is asked."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Options:
    """What somebody says on the command line."""

    model: str | None = None
    data: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    teacher: str | None = None
    kind: str | None = None
    messages_column: str | None = None
    prompt_column: str | None = None
    completion_column: str | None = None
    text_column: str | None = None
    split: str | None = None
    hours: float = 10.0

    @property
    def data_settings(self) -> dict[str, str]:
        """What is said of the demonstrations, as settings of a study's `data`."""
        names = ("messages_column", "prompt_column", "completion_column", "text_column", "split")
        said = {name: getattr(self, name) for name in names}
        return {name: value for name, value in said.items() if value is not None}

    def with_answers(self, answers: Mapping[str, str]) -> Options:
        """The options with what somebody typed, by their name."""
        several = ("data", "tasks")
        typed: dict[str, Any] = {name: (text,) if name in several else text for name, text in answers.items()}
        return replace(self, **typed)


class Asker:
    """Asks on `console`; silent where `quiet`."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self.console = console
        self.quiet = quiet or not (sys.stdin.isatty() and sys.stdout.isatty())

    def ask(self, question: str, default: str = "") -> str:
        """One line of an answer, `default` for an empty one."""
        shown = f" [{default}]" if default else ""
        self.console.print(f"{question}{shown}: ", end="", soft_wrap=True, markup=False, highlight=False)
        return input().strip() or default

    def agrees(self, question: str, *, default: bool) -> bool:
        """Yes or no; `default` where nobody is asked."""
        if self.quiet:
            return default
        answer = self.ask(f"{question} ({'Y/n' if default else 'y/N'})").lower()
        return answer.startswith("y") if answer else default

    def complete(self, options: Options) -> Options:
        """The options with model and data. Raises UserError where one is not there and nobody is asked."""
        for option, question in (
            ("model", "Model: a folder, a GGUF file, or a hub id"),
            ("data", "Demonstrations: a file, a folder, or a hub id"),
        ):
            if not getattr(options, option) and not self.quiet:
                options = options.with_answers({option: self.ask(question, only_one(f"--{option}"))})
            options = self.until_right(options, partial(_named, option), {option: question})
        if options.teacher is not None:
            require_there(options.teacher, "--teacher")
        return options

    def until_right(
        self, options: Options, attempt: Callable[[Options], Value], questions: dict[str, str] | None = None
    ) -> Value:
        """What `attempt` makes of the options, asking again for what it refuses. Raises UserError for the rest."""
        while True:
            try:
                return attempt(options)
            except UserError as error:
                mends = MENDED.get(error.field or "", ()) if questions is None else tuple(questions.items())
                if self.quiet or not mends:
                    raise
                self.console.print(str(error), soft_wrap=True, markup=False, style="yellow")
                answers = {name: self.ask(question) for name, question in mends}
                if not all(answers.values()):
                    raise
                options = options.with_answers(answers)


def _named(name: str, options: Options) -> Options:
    given = getattr(options, name) or None
    for each in given if isinstance(given, tuple) else (given,):
        require_there(require_given(each, f"--{name}"), f"--{name}")
    return options
