"""Whether a study's storage and its tracking store can be opened: a night that cannot write is told in the evening."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

import sqlalchemy

from ...spaces.errors import UserError
from ..store.server import require_driver
from ..store.storage import NETWORK_FILE_SYSTEMS, file_system, open_storage, sqlite_path
from ..store.study import storage_url
from ..study.config import StudyConfig
from ..study.secrets import redact, shown
from ..tracking.address import tracking_uri
from ..tracking.connection import connect

DATABASES = ("postgresql", "mysql", "mssql")


def reached_storage(config: StudyConfig) -> str:
    """Open the storage, without making a file that is not there yet; its URL, to be shown. Raises UserError."""
    url = storage_url(config)
    path = sqlite_path(url) if url.startswith("sqlite:") else None
    if config.storage is None and path is not None and not path.exists():
        _may_be_made(path, "folder")
        if (system := file_system(path)) in NETWORK_FILE_SYSTEMS:
            raise UserError(
                f"`storage` must not be SQLite on a network file system, but the study's folder lies on {system}; set "
                "`folder` to a local disk, or `storage` to a database server",
                field="storage",
            )
    elif path is not None and not path.exists() and path.parent.is_dir():
        _may_be_made(path, "storage")
    else:
        open_storage(url, config.study).close()
    return shown(url)


def reached_tracking(config: StudyConfig) -> str:
    """Ask the tracking store something; its URL, to be shown. Raises UserError when it does not answer."""
    if config.tracking.uri == "none":
        return "none"
    uri = tracking_uri(config)
    path = sqlite_path(uri) if uri.startswith("sqlite:") else None
    if path is not None and not path.exists():
        _may_be_made(path, "tracking.uri" if config.tracking.uri else "folder")
        return shown(uri)
    try:
        if uri.startswith(DATABASES):  # which MLflow tries to reach for two minutes
            require_driver(uri, "tracking.uri")
            with closing(sqlalchemy.create_engine(uri).raw_connection()):
                pass
        with tempfile.TemporaryDirectory() as folder:
            connect(uri, Path(folder))
    except UserError:
        raise
    except Exception as error:  # whatever MLflow and its drivers raise: it would be raised all night
        reason = redact(str(error)).strip().partition("\n")[0][:500] or type(error).__name__
        raise UserError(
            f"`tracking.uri` must be a store that answers, but got {shown(uri)} ({reason}); start it, name another "
            "one, e.g. sqlite:///mlflow.db, or switch tracking off with none",
            field="tracking.uri",
        ) from None
    return shown(uri)


def _may_be_made(path: Path, field: str) -> None:
    """Raises UserError when a file cannot be made at `path`, with the folders to it that are missing."""
    there = next(folder for folder in path.parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UserError(
            f"`{field}` must lie where files can be made, but {there} is no folder that may be written; choose another "
            "place",
            field=field,
        )
