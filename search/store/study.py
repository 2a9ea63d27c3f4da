"""A study in its storage and on disk: created when its inputs are known to work, compared with them when resumed."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna

from ... import __version__
from ...spaces.errors import UserError
from ..study.config import StudyConfig
from ..study.config_file import parse_study
from ..study.files import require_writable
from ..study.folder_file import read_folder, write_folder, write_host
from ..study.resume import Change, as_searched, decisive, hold_against, refuse_changes, refuse_other_inputs, said
from ..study.secrets import filled, redact
from .prior import Prior
from .storage import StudyStorage, open_storage, placed, sqlite_url

optuna.logging.set_verbosity(optuna.logging.WARNING)  # events say what happens; its own lines would break progress bars


IDENTITY = "identity"
"""User attribute of a study: drawn when it was created, so that one made anew under the old name is another."""


@dataclass(frozen=True)
class Study:
    """An opened study; `stored` is what its storage says about it, empty for a new one."""

    config: StudyConfig
    folder: Path
    storage: StudyStorage
    stored: dict[str, Any] = field(default_factory=dict)
    joined: bool = False
    """Whether another process has created it, and says how it is configured."""

    @property
    def name(self) -> str:
        return self.config.study

    @property
    def shown_config(self) -> dict[str, Any]:
        """The configuration as JSON data, passwords hidden."""
        data = self.config.model_dump(mode="json")
        hidden = {"storage": redact(data["storage"]) if data["storage"] else None}
        uri = data["tracking"]["uri"]
        return {**data, **hidden, "tracking": {**data["tracking"], "uri": redact(uri) if uri else None}}

    @property
    def identity(self) -> str | None:
        """As its storage has it; None for a study from before studies had one."""
        return stored_attributes(self.storage, self.name).get(IDENTITY)

    def create(self, fingerprints: dict[str, str], prior: Prior | None = None) -> None:
        """Make the study, or check that an existing one saw the same inputs; raises UserError when it did not.

        `prior`: what it takes from earlier studies. A confirmation must have seen what its search has seen.
        """
        if (search := self.config.confirms) is not None:
            hold_against(search.fingerprints, fingerprints, self.name.partition(".confirmation-")[0], "a confirmation")
        with self.storage.lock():
            study = optuna.create_study(
                study_name=self.name,
                storage=self.storage.backend,
                directions=["maximize"] * self.config.objectives,
                load_if_exists=True,
            )
            before = study.user_attrs.get("fingerprints")
            if before is not None:
                refuse_other_inputs(before, fingerprints, self.name)
            if before is None:
                study.set_user_attr(IDENTITY, secrets.token_hex(8))
            if before is None or not self.joined:  # a joiner's own paths are nobody else's business
                study.set_user_attr("config", self.shown_config)
                study.set_user_attr("version", __version__)
                study.set_user_attr("code", code_fingerprints())
            study.set_user_attr("fingerprints", fingerprints)
            if prior is not None and "prior" not in study.user_attrs:
                study.set_user_attr("prior", prior.model_dump(mode="json"))


def open_study(config: StudyConfig, joined: bool = False) -> Study:
    """Open storage and folder of a study, and check a resumed one's configuration.

    Raises UserError for a storage that cannot be opened, or a configuration that decides trials and has changed.
    """
    folder = config.study_folder
    require_writable(folder, "folder")
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(storage_url(config), config.study)
    stored = stored_attributes(storage, config.study)
    config = _dated(config, stored.get("config", {}).get("date"))
    if "config" in stored:
        dated = {**stored["config"], "date": stored["config"].get("date") or str(config.date)}
        refuse_changes(dated, config)
        config = _with_its_splits(stored["config"], config)
    study = Study(config, folder, storage, stored, joined)
    if joined and _is_kept(config):
        write_host(config)
    else:
        write_folder(config)
    return study


def _with_its_splits(stored: Mapping[str, Any], config: StudyConfig) -> StudyConfig:
    """The configuration with the number of report problems that decided which problems trials see."""
    kept = stored["evaluation"].get("report_problems", config.evaluation.report_problems)
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"report_problems": kept})})


def _is_kept(config: StudyConfig) -> bool:
    """Whether the study's folder is there already, kept by whoever created the study."""
    try:
        return not decisive(read_folder(config.study_folder).model_dump(mode="json"), config)
    except UserError:
        return False


@dataclass(frozen=True)
class Searched:
    """What the trials of a study were run with, whatever its file says today."""

    config: StudyConfig
    """As searched in everything that decides a trial; the rest is today's."""
    fingerprints: Mapping[str, str]
    """Content of model, data and problems; empty when no trial was ever begun."""
    changes: Sequence[Change]
    """What today's file says otherwise."""

    @property
    def note(self) -> str | None:
        """What has changed since, in a sentence."""
        return f"The study's file has changed since it was searched: {said(self.changes)}." if self.changes else None

    def refuse_changes(self, what: str) -> None:
        """Raise UserError when the file has changed in what decides a trial; `what` is wanted now."""
        if self.changes:
            raise UserError(
                f"{what} must use what study {self.config.study!r} was searched with, but {said(self.changes)}. "
                f"Set it back, or name the study's folder, which keeps it: {self.config.study_folder}",
                field=self.changes[0].field,
            )


def searched(config: StudyConfig) -> Searched:
    """What the study of a file or a folder was searched with, as its storage says.

    Raises UserError when there is no such study.
    """
    with closing(open_storage(storage_url(config), config.study, reading=True)) as storage:
        stored = stored_attributes(storage, config.study)
    if "config" not in stored:
        raise UserError(f"study {config.study!r} must exist, but {storage.shown} has no such study; run it first")
    return held_against(config, stored)


def held_against(config: StudyConfig, stored: Mapping[str, Any]) -> Searched:
    """The same by what the storage says of the study."""
    if "config" not in stored:
        return Searched(config, stored.get("fingerprints", {}), [])
    config = _dated(config, stored["config"].get("date"))
    before = {**stored["config"], "date": stored["config"].get("date") or str(config.date)}
    try:
        used = as_searched(before, config)
    except (UserError, KeyError):  # of a version that wrote it in another way
        used = config
    return Searched(used, stored.get("fingerprints", {}), decisive(before, config))


def _dated(config: StudyConfig, stored: str | None) -> StudyConfig:
    """The configuration with the one day of the study: as given, as stored, or else today's."""
    day = config.date or (datetime.date.fromisoformat(stored) if stored else datetime.date.today())
    return config.model_copy(update={"date": day})


def joined_config(url: str, name: str, base: Path | None = None) -> StudyConfig:
    """The configuration of an existing study at `url`, as this process is to run it.

    Raises UserError when there is no such study, or it is run by another version or other sources.
    """
    with closing(open_storage(filled(url, "STORAGE_URL"), name)) as storage:
        stored = stored_attributes(storage, name)
    if "config" not in stored:
        raise UserError(f"the study to join must exist, but {storage.shown} has none named {name!r}; run it first")
    if stored["version"] != __version__:
        raise UserError(
            f"all workers of study {name!r} must run the same version, but it was created by qtarget "
            f"{stored['version']} and this is {__version__}; install that version here"
        )
    before, now = stored.get("code", {}), code_fingerprints()
    other = sorted(name for name in {*before, *now} if before and before.get(name) != now.get(name))
    if other:
        raise UserError(
            f"all workers of study {name!r} must run the same code, but here {', '.join(other)} differ from what runs "
            "it; install the same sources here"
        )
    here = {"storage": url} | ({"base": str(base)} if base is not None else {})
    return parse_study({**stored["config"], **here}, source=f"study {name!r}")


def code_fingerprints() -> dict[str, str]:
    """Content of the sources that decide what a trial comes to, by file."""
    root = Path(__file__).parents[2]
    paths = [path for floor in ("spaces", "trainers", "evaluation") for path in sorted((root / floor).rglob("*.py"))]
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest()[:12] for path in paths}


def storage_url(config: StudyConfig) -> str:
    """The URL of the configuration, or an SQLite file in the study's folder; relative SQLite paths start at `base`.

    It is filled in and may hold a password. Raises UserError when what it refers to is not there.
    """
    if config.storage is None:
        return sqlite_url(config.study_folder / "study.db")
    return placed(filled(config.storage, "storage"), config.base_folder)


def stored_identity(config: StudyConfig) -> str | None:
    """Of a study that exists; None for one from before studies had one."""
    with closing(open_storage(storage_url(config), config.study, reading=True)) as storage:
        found: str | None = stored_attributes(storage, config.study).get(IDENTITY)
        return found


def stored_attributes(storage: StudyStorage, name: str) -> dict[str, Any]:
    """User attributes of the study, empty when there is none of that name."""
    try:
        return dict(optuna.load_study(study_name=name, storage=storage.backend).user_attrs)
    except KeyError:
        return {}
