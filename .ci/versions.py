"""Prints the versions that a run has used: those of Python and of all packages that qtarget requires."""

import platform
import re
import textwrap
from importlib.metadata import PackageNotFoundError, requires, version


def required() -> list[str]:
    """Names of what qtarget requires without extras; none where it is not installed."""
    try:
        lines = requires("qtarget") or []
    except PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]


def found(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"


if __name__ == "__main__":
    line = ", ".join([f"Python {platform.python_version()}", *map(found, required())])
    print(textwrap.fill(f"Versions: {line}", 120, break_on_hyphens=False))
