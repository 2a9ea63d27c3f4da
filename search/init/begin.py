"""One call of `qtarget init`: look, choose, show, write. Nothing is written before everything is known to be right."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ...evaluation.survey.facts import Survey, Wish
from ...spaces.errors import UserError
from ..study.config_file import parse_study
from ..study.files import write_atomic
from ..terminal.progress import ask_and_show
from .choose import Choices, Named, choose, spoken_count
from .paths import seen_from, study_name
from .question import Asker, Options
from .show import show_survey, show_written
from .text import study_text

WRITTEN = {
    "demonstrations.jsonl": "-demonstrations.jsonl",
    "problems.jsonl": "-problems.jsonl",
    "chat-template.jinja": "-chat-template.jinja",
}
"""What a look may write, and what the study's name becomes for it."""


def begin(
    file: Path, options: Options, console: Console, *, yes: bool = False, force: bool = False
) -> dict[str, Any] | None:
    """Write a study file for what `options` name; what was found and written, None where somebody says no.

    Raises UserError for what is missing, cannot be read, or would be overwritten.
    """
    asker, file = Asker(console, quiet=yes), file.absolute()
    _refuse_existing([file], force)
    options = asker.complete(options)
    with tempfile.TemporaryDirectory() as scratch:
        options, found = asker.until_right(options, lambda given: _looked(given, file, Path(scratch), console))
        show_survey(found, console)
        options, found = _with_teacher(options, found, asker)
        name = study_name(file, str(options.model), options.data[0])
        texts = _texts(file, name, Path(scratch))
        _refuse_existing(list(texts), force)
        text = _study(file, name, options, found)
        if not asker.agrees(f"Write {file.name}?", default=True):
            return None
        for path, written in (texts | {file: text}).items():
            write_atomic(path, written)
    facts = found.model_dump(mode="json")
    written_files = [str(path) for path in (*texts, file)]
    result = {"study_file": _shown(file), "study": name, "files": written_files, "found": facts}
    show_written(result, console)
    return result


def _looked(options: Options, file: Path, scratch: Path, console: Console) -> tuple[Options, Survey]:
    """The options, and what a process of its own finds of them."""
    for left in scratch.iterdir():
        left.unlink()
    folder = file.parent
    wish = Wish(
        base=str(folder),
        model={"path": seen_from(folder, str(options.model))},
        data={"path": _sources(folder, options), **options.data_settings},
        teacher=None if options.teacher is None else seen_from(folder, options.teacher),
        tasks=tuple(seen_from(folder, each) for each in options.tasks),
        kind=options.kind,  # type: ignore[arg-type]  # validated here
        scratch=str(scratch),
    )
    return options, Survey.model_validate(ask_and_show("init", wish.model_dump(mode="json"), console))


def _with_teacher(options: Options, found: Survey, asker: Asker) -> tuple[Options, Survey]:
    """A sibling becomes the teacher where somebody agrees."""
    if options.teacher is not None or not found.siblings or asker.quiet:
        return options, found
    best = found.siblings[0]
    if not asker.agrees(f"Use {best.path} as the teacher, so that distillation is searched too?", default=False):
        return options, found
    return replace(options, teacher=best.path), found.model_copy(update={"teacher": best})


def _texts(file: Path, name: str, scratch: Path) -> dict[Path, str]:
    """Files that the look wrote, by the place where they belong."""
    there = {own: scratch / own for own in WRITTEN if (scratch / own).is_file()}
    return {file.with_name(name + WRITTEN[own]): path.read_text("utf-8") for own, path in there.items()}


def _study(file: Path, name: str, options: Options, found: Survey) -> str:
    """The text of the study file, as the study's own reader accepts it."""
    named = _named(file, name, options, found)
    chosen = choose(found, named, options.hours)
    text = study_text(chosen.settings, chosen.reasons, _head(file, options), _notes(chosen, found))
    parse_study({**yaml.safe_load(text), "base": str(file.parent)}, source=file.name)
    return text


def _named(file: Path, name: str, options: Options, found: Survey) -> Named:
    folder, held = file.parent, found.problems.held_out is not None
    model: dict[str, Any] = {"path": seen_from(folder, str(options.model))}
    if found.data.template is not None:
        model["chat_template"] = name + WRITTEN["chat-template.jinja"]
    problems = name + WRITTEN["problems.jsonl"]
    return Named(
        study=name,
        model=model,
        data=name + WRITTEN["demonstrations.jsonl"] if held else _sources(folder, options),
        teacher=None if options.teacher is None else seen_from(folder, options.teacher),
        tasks=tuple({**task, "path": problems} if held else task for task in found.problems.tasks),
    )


def _sources(folder: Path, options: Options) -> str | list[str]:
    """The demonstrations as the study file names them: one path, or a list of several."""
    found = [seen_from(folder, each) for each in options.data]
    return found[0] if len(found) == 1 else found


def _notes(chosen: Choices, found: Survey) -> Mapping[str, str]:
    """Comments behind a section: a teacher that could be had."""
    if found.teacher is not None or not found.siblings:
        return {}
    best = found.siblings[0]
    return {
        "model": f"teacher: {{path: {best.path}}}   # {spoken_count(best.parameters)} parameters, the same vocabulary: "
        "with it, distillation is searched too"
    }


def _head(file: Path, options: Options) -> str:
    said = {
        "--model": [options.model], "--data": options.data, "--teacher": [options.teacher], "--tasks": options.tasks,
        "--hours": [] if options.hours == Options.hours else [f"{options.hours:g}"],
    }  # fmt: skip
    words = [word for option, values in said.items() for value in values if value for word in (option, value)]
    return (
        f"Written by `qtarget init {shlex.join(words)}`. Every choice says why; change what you like.\n"
        f"Next: qtarget check {file.name}, then qtarget run {file.name}"
    )


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _refuse_existing(paths: Sequence[Path], force: bool) -> None:
    there = [path for path in paths if path.exists()]
    if there and not force:
        raise UserError(
            f"`qtarget init` overwrites nothing, but {there[0]} is there; name another file: qtarget init OTHER.yaml, "
            "or pass --force"
        )
