"""A study in its storage and on disk: created when its inputs are known to work, compared with them when resumed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna

from ... import __version__
from ...spaces.errors import UserError
from ..study.config import StudyConfig
from ..study.config_file import parse_study, write_folder
from ..study.redaction import redact
from ..study.resume import refuse_changes, refuse_other_inputs
from .prior import Prior
from .storage import StudyStorage, open_storage, sqlite_url

optuna.logging.set_verbosity(optuna.logging.WARNING)  # events say what happens; its own lines would break progress bars


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

    def create(self, fingerprints: dict[str, str], prior: Prior | None = None) -> None:
        """Make the study, or check that an existing one saw the same inputs; raises UserError when it did not.

        `prior`: what it takes from earlier studies.
        """
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
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_storage(storage_url(config), config.study)
    stored = stored_attributes(storage, config.study)
    if "config" in stored:
        refuse_changes(stored["config"], config)
    study = Study(config, folder, storage, stored, joined)
    write_folder(config)
    return study


def joined_config(url: str, name: str, base: Path | None = None) -> StudyConfig:
    """The configuration of an existing study at `url`, as this process is to run it.

    Raises UserError when there is no such study, or it is run by another version or other sources.
    """
    with closing(open_storage(url, name)) as storage:
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
    """The URL of the configuration, or an SQLite file in the study's folder; relative SQLite paths start at `base`."""
    if config.storage is None:
        return sqlite_url(config.study_folder / "study.db")
    prefix = "sqlite:///"
    if config.storage.startswith(prefix) and not config.storage.startswith(f"{prefix}/"):
        return sqlite_url(config.base_folder / config.storage.removeprefix(prefix))
    return config.storage


def stored_attributes(storage: StudyStorage, name: str) -> dict[str, Any]:
    """User attributes of the study, empty when there is none of that name."""
    try:
        return dict(optuna.load_study(study_name=name, storage=storage.backend).user_attrs)
    except KeyError:
        return {}
