"""The engine, allowed only so many megabytes beyond what it holds once everything is loaded."""

import os
import resource
import sys
from pathlib import Path

from qtarget.search.engine import main as engine

UNIT = 1 << 20


class LimitedEngine(engine.Engine):
    """Limits its address space when model and data are there; `QTARGET_DRILL_MEGABYTES` says to how much more."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = held + int(float(os.environ["QTARGET_DRILL_MEGABYTES"]) * UNIT)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    engine.Engine = LimitedEngine  # type: ignore[misc]
    engine.main(Path(sys.argv[1]))
