"""Arguments and options that several verbs share, and how a verb speaks: to people, or in JSON to programs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from rich.console import Console

PAGE_WIDTH = 120
"""Columns of what is printed for no terminal: formulas of targets are long."""
LONGEST_HELP = 1000
"""Characters; lists of verbs are wrapped, not cut."""

StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
StudyFiles = Annotated[
    list[Path], typer.Argument(help="Study file, campaign file (with `matrix`), or several.", metavar="STUDY.yaml")
]
StudyPath = Annotated[Path, typer.Argument(help="Study file (YAML), or a study's folder.", metavar="STUDY")]
StudyPaths = Annotated[
    list[Path], typer.Argument(help="Study file or folder, campaign file, or several of them.", metavar="STUDY")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Total number of trials, instead of the file's.")]
Workers = Annotated[int, typer.Option(min=1, help="Engines on this host.")]
Hours = Annotated[
    float | None, typer.Option("--gpu-hours", min=0, help="Stop when all trials together have used an engine so long.")
]
Ray = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Ray cluster for the engines: one a GPU, or one a node without.")
]
Until = Annotated[str | None, typer.Option(help="Stop at this time: 07:00, +8h, or 2030-01-31T07:00+01:00.")]


class WholeHelp(typer.core.TyperCommand):
    """A verb whose first sentence stands whole in the list of verbs."""

    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(LONGEST_HELP)


class WholeHelpGroup(typer.core.TyperGroup):
    """As `WholeHelp`, for a group of verbs."""

    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(LONGEST_HELP)


def console_for(as_json: bool = False, record: bool = False) -> Console:
    """Terminal for people; with --json it moves to standard error and leaves standard output to the program.

    A picture, and a file or pipe, whose width nobody knows, has `PAGE_WIDTH` columns.
    """
    from rich.console import Console

    console = Console(stderr=as_json, record=record)
    if record or not (console.is_terminal or "COLUMNS" in os.environ):
        console.width = PAGE_WIDTH
    return console


def print_json(value: Any) -> None:
    """Exits with 1 where there is no room for it; a reader that has gone has seen enough."""
    from ..terminal.output import FULL, lost_output

    print(json.dumps(value, indent=2, default=str), flush=True)
    failure = lost_output()
    if failure is not None and failure.errno in FULL:
        print(f"qtarget: the result could not be printed: {failure.strerror}", file=sys.stderr)
        raise SystemExit(1)


def finish(summary: dict[str, Any], as_json: bool) -> None:
    """End a verb that runs a study: exit 130 when it was stopped, 1 when it did not finish."""
    if as_json:
        print_json(summary)
    if summary["state"] != "finished":
        raise SystemExit(130 if summary["state"] == "stopped" else 1)
