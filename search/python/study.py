"""`Study`: what the command line does with a study, from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from rich.console import Console

from ...spaces.errors import UserError
from ..campaign.session import confirm_study, run_study_and_show
from ..export.write import export_winner
from ..init.paths import study_name
from ..launchers.choose import on_cluster
from ..loop.budget import parse_until
from ..loop.confirm import verdict_files
from ..store.history import TrialRecord, best, load_history
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE, find_study, parse_study, placed
from ..study.files import read_json
from ..terminal.check import check_study
from .frame import table
from .page import Page, console

PATHS = ("model", "teacher", "data")
"""Sections that may be given as a path alone."""


class Study:
    """A study of a YAML file, of a study's folder, or of keyword arguments that are the file's sections.

        study = Study("my.yaml")
        study = Study(model="Qwen/Qwen2.5-0.5B", data="train.jsonl", evaluation={"tasks": [{"path": "problems.jsonl"}]})
        study.run()

    Everything is kept in the study's folder: a script that is run again, or an interrupted cell, goes on where it was.
    """

    def __init__(self, path: str | Path | None = None, **sections: Any) -> None:
        """`path` or `sections`, not both; relative paths of `sections` start at the working directory, or at `base`.

        Raises UserError that names every fault: path in the file, rule, value, remedy.
        """
        if (path is None) == (not sections):
            raise UserError(
                "`Study` must get the path of a YAML file or of a study's folder, or a file's sections as keyword "
                f"arguments, but got {'both' if sections else 'neither'}; drop one"
            )
        self._path = None if path is None else Path(path)
        self.config: StudyConfig = _parsed(sections) if self._path is None else find_study(self._path)
        """Everything that decides it, frozen."""
        self.console: Console = console()
        """Where progress goes."""

    @property
    def name(self) -> str:
        return self.config.study

    @property
    def folder(self) -> Path:
        """Where everything of it is kept."""
        return self.config.study_folder

    def check(self) -> dict[str, Any]:
        """As `qtarget check`: what would fail in the night fails now; what was found, and what the study will cost."""
        if self._path is not None:
            return check_study(self._path, self.console)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "study.yaml"
            file.write_text(yaml.safe_dump(self.config.model_dump(mode="json", exclude_unset=True)), "utf-8")
            return check_study(file, self.console)

    def run(
        self,
        *,
        trials: int | None = None,
        workers: int = 1,
        until: str | None = None,
        gpu_hours: float | None = None,
        ray: str | None = None,
    ) -> Self:
        """As `qtarget run`: create or resume, then confirm where report problems are kept. Returns the study.

        Interrupted (Ctrl-C, or a notebook's stop button) it stops at the next step, and another call goes on there.
        """
        with on_cluster(ray):
            run_study_and_show(
                self.config, self.console, trials=trials, workers=workers, until=until, hours=gpu_hours
            )  # fmt: skip
        return self

    def confirm(self, *, workers: int = 1, until: str | None = None) -> Mapping[str, Any] | None:
        """As `qtarget confirm`; the verdict, with what is `undecided` where that was stopped; None before any."""
        return confirm_study(self.config, self.console, workers=workers, deadline=parse_until(until))

    def records(self) -> list[TrialRecord]:
        """Every slot of the queue, in its order; none before the study ran."""
        return load_history(self.config) if (self.folder / FOLDER_FILE).is_file() else []

    def trials(self) -> Any:
        """Every slot of the queue as a pandas frame, a row a trial; a list of rows where pandas is not installed."""
        return table(self.records())

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the highest score, partly luck; None where none is complete."""
        return best(self.records())

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """What the newest confirmation with a verdict found; None without one."""
        found = (read_json(file) for file in reversed(verdict_files(self.folder)))
        return next((verdict for verdict in found if verdict), None)

    def report(self, *, models: bool = True) -> Page:
        """As `qtarget report`; shown inline where it stands last in a notebook's cell.

        `models`: load them for demonstrations that are not kept yet.
        """
        from ..report.write import write_report  # matplotlib takes a second to import

        files = write_report(self.folder, self.console, compute=models)
        return Page(Path(files["html"]), Path(files["markdown"]))

    def export(self, directory: str | Path, *, unconfirmed: bool = False) -> Path:
        """As `qtarget export`: the winner as files that train anywhere; their folder."""
        return Path(
            export_winner(self.folder, Path(directory), self.console, unconfirmed=unconfirmed)["directory"]
        )  # fmt: skip

    def __repr__(self) -> str:
        records = self.records()
        done, top = sum(record.finished for record in records), best(records)
        said = "" if top is None else f", best {top.score:.3f}: {top.title}"
        return f"<Study {self.name}: {done} of {len(records) or self.config.search.slots} trials{said}>"


def _parsed(sections: Mapping[str, Any]) -> StudyConfig:
    """The study of a file's sections, named after model and data where no name is given."""
    read = {
        name: {"path": str(value)} if name in PATHS and isinstance(value, str | Path) else value
        for name, value in sections.items()
    }
    if "study" not in read and all(isinstance(read.get(name), Mapping) for name in ("model", "data")):
        read["study"] = study_name(Path("study.yaml"), *(str(read[name].get("path")) for name in ("model", "data")))
    return parse_study(placed(read, Path.cwd() / "study.yaml"), source="the study")
