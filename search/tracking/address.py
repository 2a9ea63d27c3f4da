"""Which store a study is tracked in, and what its runs are found by there."""

from __future__ import annotations

from pathlib import Path

from ..store.study import storage_url
from ..study.config import StudyConfig
from ..study.folder_file import written_folder
from ..study.redaction import redact
from ..study.references import filled
from .moves import kept_key


def tracking_uri(config: StudyConfig) -> str:
    """The configured store, or an SQLite file in the study's folder. It is filled in and may hold a password."""
    uri = config.tracking.uri
    return default_uri(config.study_folder) if not uri else filled(uri, "tracking.uri")


def study_key(config: StudyConfig) -> str:
    """What its runs are found by in a store that several studies share: its name, and where it is kept.

    A study in a folder of its own stays the same when that is moved.
    """
    place, folder = storage_url(config), config.study_folder
    if not place.startswith("sqlite"):
        return f"{config.study}@{redact(place)}"
    own = tracking_uri(config) == default_uri(folder)
    return kept_key(config.study, folder, written_folder(folder) or folder, own_store=own)


def default_uri(folder: Path) -> str:
    """The store of a study that names none."""
    return f"sqlite:///{folder}/mlflow.db"
