"""Verbs that put something into the queue of a study, running or not. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, StudyPath, console_for, print_json


def add(
    study: StudyPath,
    design: Annotated[
        str,
        typer.Argument(
            help="Published objective, YAML or JSON file (preset, target, parameters; a winner.yaml), or a mapping "
            "in braces.",
            metavar="DESIGN",
        ),
    ],
    knob: Annotated[list[str] | None, typer.Option(help="Knob of a published objective.", metavar="NAME=VALUE")] = None,
    training: Annotated[
        list[str] | None, typer.Option(help="Training setting, e.g. learning_rate=1e-4.", metavar="NAME=VALUE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a design of your own into a study: it runs next, on top of the budget."""
    from ..commands.by_hand import add_design

    found = add_design(study, design, console_for(as_json), knobs=knob or (), training=training or ())
    if as_json:
        print_json(found)


def rerun(
    study: StudyPath,
    trials: Annotated[
        list[int] | None, typer.Argument(help="Numbers; default: all that have failed.", metavar="TRIAL")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put failed trials back into the queue, each in its own place of the budget."""
    from ..commands.by_hand import rerun_trials

    found = rerun_trials(study, trials or (), console_for(as_json))
    if as_json:
        print_json(found)
