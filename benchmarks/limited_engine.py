"""The engine, allowed only so many megabytes beyond what it holds once all is loaded: of the GPU, or of the host."""

import os
import resource
import sys
import threading
from pathlib import Path

import torch

from qtarget.search.engine import main as engine

UNIT = 1 << 20


class LimitedEngine(engine.Engine):
    """Limits its allocator (without a GPU its address space) when model and data are there;
    `QTARGET_DRILL_MEGABYTES` says to how much more."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)  # type: ignore[arg-type]
        more = int(float(os.environ["QTARGET_DRILL_MEGABYTES"]) * UNIT)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + more) / total))
            return
        threading.stack_size(UNIT)  # which counts as memory, used or not; a thread without it never tells that it began
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    engine.Engine = LimitedEngine  # type: ignore[misc]
    engine.main(Path(sys.argv[1]))
