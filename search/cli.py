"""The command line: verbs that take a study file. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..spaces.errors import UserError
from .redaction import redact
from .train_options import train
from .verify_command import verify
from .view_commands import report, reproduce, ui

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Find the best target distribution for supervised fine-tuning on your data and your model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
StudyFile = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
StudyFiles = Annotated[
    list[Path], typer.Argument(help="Study file, campaign file (with `matrix`), or several.", metavar="STUDY.yaml...")
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
Until = Annotated[str | None, typer.Option(help="Stop at this time, e.g. 07:00 or 2030-01-31T07:00+01:00.")]


def main() -> NoReturn:
    """Entry point: exit 0 done, 1 failed, 2 usage or configuration, 130 interrupted."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        print(f"qtarget: {redact(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("qtarget: interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


def _console(as_json: bool = False, record: bool = False) -> Console:
    """Terminal for people; with --json it moves to standard error and leaves standard output to the program."""
    from rich.console import Console

    return Console(stderr=as_json, record=record, width=120 if record else None)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


@app.command()
def presets(
    as_json: AsJson = False,
    figure: Annotated[Path | None, typer.Option(help="Draw what each objective teaches into this image file.")] = None,
) -> None:
    """Table of the published objectives as points of the target space."""
    from ..spaces import presets as published
    from . import tables

    if figure is not None:
        from ..spaces.figure import draw

        draw(figure)
        print(f"Figure written to {figure}")
    elif as_json:
        _print_json(published.table())
    else:
        _console().print(tables.presets_table(published.table()))


@app.command()
def check(study: StudyFiles, as_json: AsJson = False) -> None:
    """Validate a study and run its worst-case step: what would fail in the night fails now."""
    from .campaign_check import check_files

    facts = check_files(study, _console(as_json))
    if as_json:
        _print_json(facts)


@app.command()
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
    from .campaign import run_files
    from .launcher import on_cluster

    with on_cluster(ray):
        found = run_files(study, _console(as_json), trials=trials, workers=workers, until=until, hours=gpu_hours)
    _finish(found, as_json)


@app.command()
def join(
    storage_url: Annotated[str, typer.Argument(help="Storage of the study.", metavar="STORAGE_URL")],
    study: Annotated[str, typer.Argument(help="Name of the study.", metavar="STUDY")],
    base: Annotated[Path | None, typer.Option(help="Folder that the study's relative paths start from here.")] = None,
    workers: Workers = 1,
    until: Until = None,
    gpu_hours: Hours = None,
    as_json: AsJson = False,
) -> None:
    """Work on a study that another process or host created."""
    from .session import join_and_show

    console = _console(as_json)
    found = join_and_show(storage_url, study, console, base=base, workers=workers, until=until, hours=gpu_hours)
    _finish(found, as_json)


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option(help="Where the world and the study are kept.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Same seed, same winner.")] = 0,
    trials: Trials = None,
    as_json: AsJson = False,
) -> None:
    """The embedded study: a tiny model, noisy arithmetic demonstrations, CPU, minutes."""
    from .quickstart import run_quickstart

    _finish(run_quickstart(folder, seed, _console(as_json), trials=trials), as_json)


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(summary)
    if summary["state"] != "finished":
        raise SystemExit(130 if summary["state"] == "stopped" else 1)


@app.command()
def status(
    study: StudyFiles,
    picture: Annotated[Path | None, typer.Option(help="Also draw what is printed into this SVG file.")] = None,
    live: Annotated[bool, typer.Option("--live", "--follow", help="Follow a study or a campaign to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every trial of a study, the best so far, and what is left; every study of a campaign."""
    from .campaign import show_status
    from .campaign_live import follow_all

    console = _console(as_json, record=picture is not None)
    facts = (follow_all if live else show_status)(study, console)
    if picture is not None:
        console.save_svg(str(picture), title=f"qtarget status {' '.join(path.name for path in study)}")
    if as_json:
        _print_json(facts)


@app.command()
def compare(
    studies: Annotated[list[Path], typer.Argument(help="Studies: files, folders, campaigns.", metavar="STUDY...")],
    out: Annotated[Path | None, typer.Option(help="Markdown file (figure beside it), or an image.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which designs win in which study, and which hold across all of them."""
    from .compare_tables import compare_and_show

    facts = compare_and_show(studies, _console(as_json), out)
    if as_json:
        _print_json(facts)


@app.command()
def confirm(
    study: StudyFile, workers: Workers = 1, until: Until = None, ray: Ray = None, as_json: AsJson = False
) -> None:
    """Retrain the best designs and plain SFT with fresh seeds, and say whether the winner is one."""
    from .launcher import on_cluster
    from .session import confirm_file

    with on_cluster(ray):
        verdict = confirm_file(study, _console(as_json), workers=workers, until=until)
    if as_json:
        _print_json(verdict)
    if verdict is None:
        raise SystemExit(130)


@app.command()
def export(
    study: StudyFile,
    directory: Annotated[Path, typer.Argument(help="New folder to write.", metavar="DIR")],
    unconfirmed: Annotated[bool, typer.Option("--unconfirmed", help="Also without a confirmed winner.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the confirmed winner: winner.yaml, its loss for any trainer, a TRL script, model card, provenance."""
    from .export import export_winner, show_export

    console = _console(as_json)
    found = export_winner(study, directory, console, unconfirmed=unconfirmed)
    _print_json(found) if as_json else show_export(found, console)


app.command()(train)
for verb in (report, reproduce, ui, verify):
    app.command()(verb)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, hub id or GGUF file.", metavar="MODEL")],
    tasks: Annotated[Path, typer.Argument(help="YAML with an `evaluation` section.", metavar="TASKS.yaml")],
    out: Annotated[Path | None, typer.Option(help="Folder for items and result; a second call goes on there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on tasks."""
    from .evaluate_command import evaluate_model

    result = evaluate_model(model, tasks, out, _console(as_json))
    if as_json:
        _print_json(result)


cache = typer.Typer(help="Answers of teachers and references, kept on disk for all studies.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@cache.command("build")
def cache_build(study: StudyFile, as_json: AsJson = False) -> None:
    """Ask the study's teacher and reference once; continues or repairs what is there."""
    from .cache_commands import build

    folders = build(study, _console(as_json))
    if as_json:
        _print_json(folders)


@cache.command("verify")
def cache_verify() -> None:
    """Read every byte of every cache; exit 1 when one is torn."""
    from .cache_commands import verify_all

    if not verify_all(_console()):
        raise SystemExit(1)


@cache.command("list")
def cache_list(as_json: AsJson = False) -> None:
    """What there is, and how large."""
    from .cache_commands import show

    infos = show(_console(as_json))
    if as_json:
        _print_json(infos)


@cache.command("prune")
def cache_prune(
    unused_days: Annotated[float, typer.Option(min=0, help="Spare what was used within so many days.")] = 30.0,
) -> None:
    """Remove caches that nothing has used lately."""
    from .cache_commands import remove_unused

    remove_unused(unused_days, _console())


if __name__ == "__main__":
    main()
