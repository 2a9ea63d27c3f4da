"""Verbs that look at a study: report, reproduce, ui. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

StudyPaths = Annotated[
    list[Path], typer.Argument(help="Study file or folder, campaign file, or several of them.", metavar="STUDY...")
]
StudyPath = Annotated[Path, typer.Argument(help="Study file (YAML), or a study's folder.", metavar="STUDY")]
Number = Annotated[int, typer.Argument(help="Its number.", metavar="TRIAL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def report(
    study: StudyPaths,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file; default: report.html in the study's folder, <campaign>-report/index.html."),
    ] = None,
    models: Annotated[bool, typer.Option(help="Load the models for demonstrations that are not kept yet.")] = True,
    price: Annotated[float | None, typer.Option(min=0, help="Price of an engine hour, for the costs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Everything a study or a campaign found, as HTML that works offline, and as Markdown."""
    from rich.console import Console

    from .campaign_report import write_reports

    files = write_reports(study, Console(stderr=as_json), out=out, compute=models, price=price)
    if as_json:
        print(json.dumps(files, indent=2))


def reproduce(study: StudyPath, trial: Number, as_json: AsJson = False) -> None:
    """Train and score one trial again from its spec, and print how far the score is from the one it had."""
    from rich.console import Console

    from .reproduce_command import reproduce as again

    gap = again(study, trial, Console(stderr=as_json))
    if as_json:
        print(json.dumps(gap, indent=2))
    if gap is None:
        raise SystemExit(130)


def ui(study: StudyPaths) -> None:
    """Optuna's dashboard and the MLflow UI on local ports, until Ctrl-C."""
    from rich.console import Console

    from .ui import show_ui

    show_ui(study, Console())
