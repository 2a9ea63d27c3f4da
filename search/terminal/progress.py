"""What a person sees while a study runs: a bar for it and for each running trial, a line for each finished one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..launchers.helper import Hear, ask
from ..study.events import (
    Event,
    ProblemsDone,
    RungScored,
    StepDone,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)

STATE_STYLE = {
    "complete": "green",
    "pruned": "yellow",
    "infeasible": "red",
    "failed": "red",
    "interrupted": "cyan",
    "paused": "cyan",
}


def bars(console: Console) -> Progress:
    """The one layout of every progress bar: what, how far, how long."""
    return Progress(
        TextColumn("{task.description}", justify="left"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )


@contextmanager
def phases(console: Console) -> Iterator[Hear]:
    """Bars for what a helper process says of itself: a message with `phase`, `done` and `total` moves one."""
    tasks: dict[str, TaskID] = {}
    with bars(console) as progress:

        def hear(message: Mapping[str, Any]) -> None:
            if (phase := message.get("phase")) is not None:
                if phase not in tasks:
                    tasks[phase] = progress.add_task(phase, total=message["total"], note="")
                note = message.get("note", "")
                progress.update(tasks[phase], completed=message["done"], total=message["total"], note=note)

        yield hear


def ask_and_show(verb: str, request: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """What a helper process answers to `request`, its progress on the terminal. Raises as `ask` does."""
    with phases(console) as hear:
        return ask(verb, request, hear)


class ProgressDisplay:
    """Listener that draws bars on a terminal and prints one line per finished trial everywhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = bars(console)
        self._study: TaskID | None = None
        self._trials: dict[int, TaskID] = {}
        self._titles: dict[int, str] = {}
        self._best: tuple[float, str] | None = None
        self._reached: dict[int, int] = {}
        """Steps seen of each trial."""
        self._in_steps = False

    def on_event(self, event: Event) -> None:
        match event:
            case StudyStarted():
                for line in event.warnings:
                    self._console.print(f"look at    {line}", soft_wrap=True, style="yellow", markup=False)
                self._bars.start()
                self._start_study(event)
            case TrialStarted():
                self._start_trial(event)
            case StepDone():
                self._update(event.number, event.step, event.steps, f"loss {event.metrics.get('loss', 0.0):.3f}")
                self._count_steps(event.number, event.step)
            case ProblemsDone():
                self._update(event.number, event.done, event.total, "scoring")
            case RungScored():
                self._update(event.number, None, None, f"score {event.score:.3f}")
            case TrialEnded():
                self._end_trial(event)
            case StudyEnded():
                self._bars.stop()

    def close(self) -> None:
        self._bars.stop()

    def _start_study(self, event: StudyStarted) -> None:
        """A bar over trials, or over optimiser steps where these are the budget."""
        title, total, done = f"[bold]{escape(event.study)}", event.trials, event.finished
        if event.budget_steps is not None:
            self._in_steps, title, total, done = True, f"{title}[/], steps", event.budget_steps, event.spent_steps
        self._study = self._bars.add_task(title, total=total, completed=done, note="")

    def _count_steps(self, number: int, step: int) -> None:
        before = self._reached.get(number, step - 1)
        if self._in_steps and self._study is not None and step > before:
            self._bars.update(self._study, advance=step - before)
        self._reached[number] = max(step, before)

    def _start_trial(self, event: TrialStarted) -> None:
        self._titles[event.number] = event.title
        again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        description = f"  {event.number:3d} {escape(event.title[:46])}{again}"
        self._trials[event.number] = self._bars.add_task(description, total=event.steps, note="")

    def _update(self, number: int, done: int | None, total: int | None, note: str) -> None:
        if number in self._trials:
            self._bars.update(self._trials[number], completed=done, total=total, note=note)

    def _end_trial(self, event: TrialEnded) -> None:
        if (task := self._trials.pop(event.number, None)) is not None:
            self._bars.remove_task(task)
        title = self._titles.get(event.number, "")
        score = (event.result or {}).get("score")
        if event.state == "complete" and score is not None and (self._best is None or score > self._best[0]):
            self._best = (score, title)
        if self._study is not None and event.state != "interrupted":
            best = f"best {self._best[0]:.3f} {escape(self._best[1][:40])}" if self._best else ""
            self._bars.update(self._study, advance=0 if self._in_steps else 1, note=best)
        self._console.print(_line(event, title), highlight=False, soft_wrap=True)


def _line(event: TrialEnded, title: str) -> str:
    result = event.result or {}
    style = STATE_STYLE[event.state]
    score = f"{result['score']:.3f} ± {result['standard_error']:.3f}" if "score" in result else " " * 13
    parts = [result[name] for name in ("training_seconds", "evaluation_seconds") if name in result]
    seconds = f"{sum(parts):6.1f} s" if parts else " " * 8
    reason = f"  {escape(event.reason.splitlines()[-1][:100])}" if event.reason else ""
    return f"{event.number:4d}  [{style}]{event.state:<11}[/] {score}  {seconds}  {escape(title)}{reason}"
