"""Which store a study is tracked in, and what its runs are found by there."""

from __future__ import annotations

from pathlib import Path

from ..store.server import with_driver
from ..store.storage import placed, sqlite_url
from ..store.study import storage_url
from ..study.config import StudyConfig
from ..study.folder_file import written_folder
from ..study.secrets import filled, redact
from .moves import kept_key


def tracking_uri(config: StudyConfig) -> str:
    """The configured store, or an SQLite file in the study's folder; a relative path starts where others do.

    It is filled in and may hold a password.
    """
    uri = config.tracking.uri
    given = filled(uri, "tracking.uri") if uri else None
    return store_uri(given, config.base_folder) or default_uri(config.study_folder)


def default_uri(folder: Path) -> str:
    """The store of a study that names none."""
    return sqlite_url(folder / "mlflow.db")


def store_uri(given: str | None, base: Path) -> str | None:
    """A tracking store as people name it, as MLflow wants it; relative paths of SQLite start at `base`."""
    if given is None:
        return None
    uri = with_driver(placed(given, base))
    return uri.replace("mariadb+", "mysql+", 1) if uri.startswith("mariadb+") else uri  # MLflow knows one name only


def study_place(config: StudyConfig) -> str:
    """Where a study is kept: a server's address, or the folder in which it was first tracked.

    A study in a folder of its own stays the same when that is moved; a copy is another one.
    """
    place, folder = storage_url(config), config.study_folder
    if not place.startswith("sqlite"):
        return redact(place)
    own = tracking_uri(config) == default_uri(folder)
    key = kept_key(config.study, folder, written_folder(folder) or folder, own_store=own)
    return key.removeprefix(f"{config.study}@")


def run_key(study: str, place: str, identity: str | None) -> str:
    """What the runs of a study are found by in a store that several studies share.

    Its name with its identity, and with its folder where it has one, since a copy has the same identity; of a study
    from before studies had one, with its place. Without the characters that cannot stand in a query.
    """
    made = identity if "://" in place else f"{place}#{identity}"
    found = place if identity is None else made
    return "".join(each for each in f"{study}@{found}" if each not in "'\"`\\")
