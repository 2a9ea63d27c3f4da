"""Verbs that work on a study: check, run, join, quickstart, confirm. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AsJson,
    Hours,
    Ray,
    StudyFile,
    StudyFiles,
    Trials,
    Until,
    Workers,
    console_for,
    finish,
    print_json,
)


def check(study: StudyFiles, as_json: AsJson = False) -> None:
    """Validate a study and run its worst-case step: what would fail in the night fails now."""
    from ..campaign.check import check_files

    facts = check_files(study, console_for(as_json))
    if as_json:
        print_json(facts)


def run(
    study: StudyFiles,
    trials: Trials = None,
    workers: Workers = 1,
    until: Until = None,
    gpu_hours: Hours = None,
    ray: Ray = None,
    as_json: AsJson = False,
) -> None:
    """Create a study or a campaign of several, or resume it: one command, safe to repeat."""
    from ..campaign.run import run_files
    from ..launchers.choose import on_cluster

    with on_cluster(ray):
        found = run_files(study, console_for(as_json), trials=trials, workers=workers, until=until, hours=gpu_hours)
    finish(found, as_json)


def join(
    storage_url: Annotated[str, typer.Argument(help="Storage of the study.", metavar="STORAGE_URL")],
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    base: Annotated[Path | None, typer.Option(help="Folder that the study's relative paths start from here.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password that STORAGE_URL leaves out.")
    ] = None,
    workers: Workers = 1,
    until: Until = None,
    gpu_hours: Hours = None,
    as_json: AsJson = False,
) -> None:
    """Work on a study that another process or host created.

    Other users of this host see its command lines: keep a password out of STORAGE_URL by --password-file, or by writing
    '${NAME}' for a variable or '${file:PATH}' for a file, in single quotes.
    """
    from ..campaign.session import join_and_show
    from ..study.secrets import with_password_file

    console = console_for(as_json)
    if password_file is not None:
        storage_url = with_password_file(storage_url, password_file)
    found = join_and_show(storage_url, study, console, base=base, workers=workers, until=until, hours=gpu_hours)
    finish(found, as_json)


def quickstart(
    folder: Annotated[Path, typer.Option(help="Where the world and the study are kept.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Same seed, same winner.")] = 0,
    trials: Trials = None,
    as_json: AsJson = False,
) -> None:
    """The embedded study: a tiny model, noisy arithmetic demonstrations, CPU, minutes."""
    from ..commands.quickstart import run_quickstart

    finish(run_quickstart(folder, seed, console_for(as_json), trials=trials), as_json)


def confirm(
    study: StudyFile, workers: Workers = 1, until: Until = None, ray: Ray = None, as_json: AsJson = False
) -> None:
    """Retrain the best designs and plain SFT with fresh seeds, and say whether the winner is one."""
    from ..campaign.session import confirm_file
    from ..launchers.choose import on_cluster
    from ..loop.confirm import is_decided

    with on_cluster(ray):
        verdict = confirm_file(study, console_for(as_json), workers=workers, until=until)
    if as_json:
        print_json(verdict)
    if not is_decided(verdict):
        raise SystemExit(130)
