"""Verbs that look: presets, status, compare, report, reproduce, ui, verify. Nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, StudyFiles, StudyPath, StudyPaths, console_for, print_json

Number = Annotated[int, typer.Argument(help="Its number.", metavar="TRIAL")]


def presets(
    as_json: AsJson = False,
    figure: Annotated[Path | None, typer.Option(help="Draw what each objective teaches into this image file.")] = None,
) -> None:
    """Table of the published objectives as points of the target space."""
    from ...spaces import presets as published
    from ..terminal import tables

    if figure is not None:
        from ...spaces.figure import draw

        draw(figure)
        print(f"Figure written to {figure}")
    elif as_json:
        print_json(published.table())
    else:
        console_for().print(tables.presets_table(published.table()))


def status(
    study: StudyFiles,
    picture: Annotated[Path | None, typer.Option(help="Also draw what is printed into this SVG file.")] = None,
    live: Annotated[bool, typer.Option("--live", "--follow", help="Follow a study or a campaign to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every trial of a study, the best so far, and what is left; every study of a campaign."""
    from ..campaign.live import follow_all
    from ..campaign.run import show_status

    console = console_for(as_json, record=picture is not None)
    facts = (follow_all if live else show_status)(study, console)
    if picture is not None:
        console.save_svg(str(picture), title=f"qtarget status {' '.join(path.name for path in study)}")
    if as_json:
        print_json(facts)


def compare(
    studies: Annotated[list[Path], typer.Argument(help="Studies: files, folders, campaigns.", metavar="STUDY")],
    out: Annotated[Path | None, typer.Option(help="Markdown file (figure beside it), or an image.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which designs win in which study, and which hold across all of them."""
    from ..compare.tables import compare_and_show

    facts = compare_and_show(studies, console_for(as_json), out)
    if as_json:
        print_json(facts)


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
    from ..campaign.report import write_reports

    files = write_reports(study, console_for(as_json), out=out, compute=models, price=price)
    if as_json:
        print_json(files)


def reproduce(study: StudyPath, trial: Number, as_json: AsJson = False) -> None:
    """Train and score one trial again from its spec, and print how far the score is from the one it had."""
    from ..commands.reproduce import reproduce as again

    gap = again(study, trial, console_for(as_json))
    if as_json:
        print_json(gap)
    if gap is None:
        raise SystemExit(130)


def ui(study: StudyPaths) -> None:
    """Optuna's dashboard and the MLflow UI on local ports, until Ctrl-C."""
    from ..commands.ui import show_ui

    show_ui(study, console_for())


def verify(
    file: Annotated[
        Path, typer.Argument(help="JSONL with `completion` and `gold`, an items.jsonl, or its folder.", metavar="FILE")
    ],
    kind: Annotated[
        Literal["math", "numeric", "choice", "exact"] | None,
        typer.Option(help="How answers are compared, for lines that do not say it."),
    ] = None,
    base: Annotated[Path, typer.Option(help="Folder with a study's own verifier module.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Judge stored answers again, without a model, and show which verdicts changed."""
    from ..commands.verify import judge_again

    facts = judge_again(file, kind, base, console_for(as_json), quiet=as_json)
    if as_json:
        print_json(facts)
