"""A home folder where there is none that can be written: libraries keep their caches below it."""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

CACHES = ("HF_DATASETS_CACHE", "MPLCONFIGDIR", "QTARGET_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Variables that name the folders which are written in every run."""

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def homely(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment so that caches can be written: nothing with an ordinary home.

    Containers and services run as users without a home, or with `/` for one. Where the home has caches that cannot be
    written, models in them are still found, and only new files go elsewhere.
    """
    nameless = {} if _has_name(environment) else {"LOGNAME": f"uid-{os.getuid()}"}  # torch asks for one
    return nameless | _homely(environment)


def _homely(environment: Mapping[str, str]) -> dict[str, str]:
    home = _home(environment)
    if home is not None and _takes_files(home / ".cache" if (home / ".cache").is_dir() else home):
        return {} if environment.get("HOME") else {"HOME": str(home)}
    instead = _instead()
    if home is None or not (home / ".cache").is_dir():
        return {"HOME": str(instead)}
    return {name: str(instead / name.lower()) for name in CACHES if name not in environment}


def _has_name(environment: Mapping[str, str]) -> bool:
    """Whether this user is called something, by the environment or the list of users."""
    try:
        return any(environment.get(name) for name in NAMES) or bool(pwd.getpwuid(os.getuid()))
    except KeyError:
        return False


def _home(environment: Mapping[str, str]) -> Path | None:
    """The folder that the environment, or else the list of users, says."""
    if not (named := environment.get("HOME")):
        try:
            named = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(named) if Path(named).is_absolute() else None


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _instead() -> Path:
    """A folder of this user alone, the same one in every call."""
    folder = Path(tempfile.gettempdir()) / f"qtarget-home-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
        print(f"qtarget: no home folder can be written; caches are kept in {folder}", file=sys.stderr)
    except FileExistsError:
        found = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return Path(tempfile.mkdtemp(prefix="qtarget-home-"))  # somebody else's
    return folder
