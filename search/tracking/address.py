"""Which store a study is tracked in, and what its runs are found by there."""

from __future__ import annotations

from pathlib import Path

from ..store.server import with_driver
from ..store.storage import placed, sqlite_url
from ..store.study import storage_url
from ..study.config import StudyConfig
from ..study.redaction import redact


def tracking_uri(config: StudyConfig) -> str:
    """The configured store, or an SQLite file in the study's folder; a relative path starts where others do."""
    return store_uri(config.tracking.uri, config.base_folder) or sqlite_url(config.study_folder / "mlflow.db")


def store_uri(given: str | None, base: Path) -> str | None:
    """A tracking store as people name it, as MLflow wants it; relative paths of SQLite start at `base`."""
    if given is None:
        return None
    uri = with_driver(placed(given, base))
    return uri.replace("mariadb+", "mysql+", 1) if uri.startswith("mariadb+") else uri  # MLflow knows one name only


def study_place(config: StudyConfig) -> str:
    """Where a study is kept: what the runs of one without an identity are told apart by."""
    place = storage_url(config)
    return str(config.study_folder.resolve()) if place.startswith("sqlite") else redact(place)


def run_key(study: str, place: str, identity: str | None) -> str:
    """What the runs of a study are found by in a store that several studies share.

    Its name with its identity; of a study from before studies had one, with its place. Without the characters that
    cannot stand in a query.
    """
    return "".join(each for each in f"{study}@{identity or place}" if each not in "'\"`\\")
