"""What a study may be called: its name is a folder, a row of the storage, a run of MLflow and a file of a report."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST_BYTES = 200
"""File names end at 255 bytes, and what is made of a study's name adds to it."""
_CONFIRMATION = re.compile(r"\.confirmation-[0-9a-f]{8}(-\d+)?$")
"""What the name of a study's confirmation adds to it."""


def _checked(name: str) -> str:
    own = _CONFIRMATION.sub("", name)
    if re.fullmatch(r"[\w.-]+", own) is None or not own.strip("."):
        raise ValueError(
            "a name must match the pattern [\\w.-]+ (letters, digits, `_`, `-` and dots), and be more than dots, but "
            f"got {name[:80]!r}; it names a folder"
        )
    if (size := len(own.encode())) > LONGEST_BYTES:
        raise ValueError(
            f"a name must have at most {LONGEST_BYTES} bytes, as it names files, but got {size} ({own[:20]!r}...); "
            "shorten it"
        )
    return name


StudyName = Annotated[str, AfterValidator(_checked)]
