"""What was found, for people: the model, two demonstrations as learnt, a problem, and what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from ...evaluation.survey.facts import Segment, Survey
from .choose import spoken_bytes, spoken_count

LONGEST = 240
"""Characters of a text that are shown: its beginning and its end."""


def show_survey(found: Survey, console: Console) -> None:
    """What a look found, before anything is chosen."""
    for line in survey_lines(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    for note in found.data.notes:
        console.print(f"look at    {note}", soft_wrap=True, style="yellow", markup=False)


def survey_lines(found: Survey) -> Iterator[str]:
    model, data, problems = found.model, found.data, found.problems
    template = "with a chat template" if model.has_template else "without a chat template"
    yield f"model      {model.architecture}, {spoken_count(model.parameters)} parameters, {template}"
    yield f"device     {found.machine.device}, {spoken_bytes(found.machine.memory_bytes)} free"
    unread = f"; not read: {', '.join(data.unread_columns)}" if data.unread_columns else ""
    yield f"data       {data.rows} demonstrations, columns: {data.shape}{unread}"
    for number, shown in enumerate(data.shown, 1):
        yield f"example {number}  as it is learnt (> carries a loss):"
        yield from demonstration_lines(shown)
    for kind in dict.fromkeys(problems.kinds):
        yield f"answers    {kind}"
    for question, gold in problems.examples[:1]:
        yield f"problem    {_short(question)}"
        yield f"gold       {_short(gold)}"
    if problems.held_out is not None:
        held = problems.held_out
        yield (
            f"held out   {held.problems} problems, by the content of their questions; {held.demonstrations} "
            "demonstrations are left to learn from"
        )
    for sibling in found.siblings[:1]:
        yield f"teacher    {sibling.path} ({spoken_count(sibling.parameters)} parameters) has the same vocabulary"


def demonstration_lines(shown: tuple[Segment, ...]) -> Iterator[str]:
    """A line a segment, what is learnt behind `>`."""
    for text, learnt in shown:
        yield f"  {'>' if learnt else '|'} {_short(text)}"


def _short(text: str) -> str:
    line = text.replace("\\", "\\\\").replace("\n", "\\n")
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def show_written(written: Mapping[str, Any], console: Console) -> None:
    """What lies where now, and how to go on."""
    for path in written["files"]:
        console.print(f"written    {path}", soft_wrap=True, markup=False, highlight=False)
    study = written["study_file"]
    console.print(f"Next: qtarget check {study}, then qtarget run {study}", soft_wrap=True, markup=False)
