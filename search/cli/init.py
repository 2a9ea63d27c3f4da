"""The verb that comes before there is a study: init. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, console_for, print_json

Column = Annotated[str | None, typer.Option(help="Its name, where it is not found by itself.", metavar="NAME")]


def init(
    file: Annotated[Path, typer.Argument(help="Study file to write.", metavar="STUDY.yaml")] = Path("study.yaml"),
    model: Annotated[str | None, typer.Option(help="Folder, GGUF file or hub id.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Demonstrations: file, pattern, folder or hub id; once for each.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Problems with known answers: a file, a suite (gsm8k), gym:NAME or lm_eval:NAME. Default: held out."
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="A model with the same vocabulary.")] = None,
    kind: Annotated[
        Literal["math", "numeric", "choice", "exact"] | None,
        typer.Option(help="How answers are compared. Default: by what they look like."),
    ] = None,
    messages_column: Column = None,
    prompt_column: Column = None,
    completion_column: Column = None,
    text_column: Column = None,
    split: Annotated[str | None, typer.Option(help="Of the demonstrations: train, or train[:1000].")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How long the search may take, roughly.")] = 10.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """From a model and a data file to a study file: every choice with its reason."""
    from ..init.begin import begin
    from ..init.question import Options

    options = Options(
        model, tuple(data or ()), tuple(tasks or ()), teacher, kind,
        messages_column, prompt_column, completion_column, text_column, split, hours,
    )  # fmt: skip
    written = begin(file, options, console_for(as_json), yes=yes or as_json, force=force)
    if as_json:
        print_json(written)
