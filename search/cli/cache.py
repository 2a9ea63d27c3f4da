"""Verbs of `qtarget cache`: build, verify, list, prune. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, StudyFile, WholeHelp, console_for, print_json

cache = typer.Typer(help="Answers of teachers and references, kept on disk for all studies.", no_args_is_help=True)


@cache.command("build", cls=WholeHelp)
def cache_build(study: StudyFile, as_json: AsJson = False) -> None:
    """Ask the study's teacher and reference once; continues or repairs what is there."""
    from ..commands.cache import build

    folders = build(study, console_for(as_json))
    if as_json:
        print_json(folders)


@cache.command("verify", cls=WholeHelp)
def cache_verify() -> None:
    """Read every byte of every cache; exit 1 when one is torn."""
    from ..commands.cache import verify_all

    if not verify_all(console_for()):
        raise SystemExit(1)


@cache.command("list", cls=WholeHelp)
def cache_list(as_json: AsJson = False) -> None:
    """What there is, and how large."""
    from ..commands.cache import show

    infos = show(console_for(as_json))
    if as_json:
        print_json(infos)


@cache.command("prune", cls=WholeHelp)
def cache_prune(
    unused_days: Annotated[float, typer.Option(min=0, help="Spare what was used within so many days.")] = 30.0,
) -> None:
    """Remove caches that nothing has used lately."""
    from ..commands.cache import remove_unused

    remove_unused(unused_days, console_for())
