"""Which store a study is tracked in, and what its runs are found by there."""

from __future__ import annotations

from ..store.study import storage_url
from ..study.config import StudyConfig
from ..study.redaction import redact


def tracking_uri(config: StudyConfig) -> str:
    """The configured store, or an SQLite file in the study's folder."""
    return config.tracking.uri or f"sqlite:///{config.study_folder}/mlflow.db"


def study_key(config: StudyConfig) -> str:
    """What its runs are found by in a store that several studies share: its name, and where it is kept."""
    place = storage_url(config)
    return f"{config.study}@{config.study_folder.resolve() if place.startswith('sqlite') else redact(place)}"
