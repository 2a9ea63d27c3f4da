"""The parts in an order of worth, each within its time.

    python -m benchmarks.gpu.run RESULTS --until SECONDS_SINCE_EPOCH [--tiny] [--parts abc] [--call NAME]

Started by `run_all.sh`, which starts it again when a measurement took the process with it. Exit status: 0 all settled,
75 the device's context is lost and a new process must go on, 3 the results are those of another machine, else a crash.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from .made import FULL, TINY, Sizes
from .record import OtherMachine, Results

GO_ON = 75
"""Exit status that asks for a new process."""
NOT_HERE = 3
"""Exit status where the folder of results belongs to another machine."""


@dataclass(frozen=True)
class Measurement:
    """One thing to measure."""

    name: str
    seconds: float
    """What it takes on a card at full size, roughly: it is not begun with less time left."""
    run: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """Measurements that belong together."""

    letter: str
    module: str
    seconds: float
    """What it may take; time that a part leaves goes to those after it."""
    title: str


PARTS = (
    Part("a", "parity", 70, "the kernel and every preset against float64"),
    Part("b", "losses", 110, "the loss layer against others"),
    Part("c", "steps", 90, "training steps of a 1.5B model"),
    Part("f", "memory", 40, "memory that does not suffice"),
    Part("e", "generation", 50, "generation"),
    Part("d", "studies", 75, "a study from end to end"),
    Part("g", "engines", 45, "two engines on one GPU, one killed in a kernel"),
)
PATIENCE = 4.0
"""A measurement that takes so many times what it should, and some slack, hangs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--until", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--parts", default="".join(part.letter for part in PARTS))
    parser.add_argument("--call", default="alone")
    given = parser.parse_args()
    sizes = TINY if given.tiny else FULL
    try:
        results = Results(given.results, given.call, sizes.name)
    except OtherMachine as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_HERE)
    end = time.time()
    for part in PARTS:
        if part.letter in given.parts:
            end = min(given.until, end + part.seconds * sizes.stretch)
            run_part(part, sizes, results, end)
            free()  # what the part's measurements shared


def run_part(part: Part, sizes: Sizes, results: Results, end: float) -> None:
    """What of a part is not settled yet, up to `end` (seconds since the epoch)."""
    module = import_module(f"{__package__}.{part.module}")
    measurements: Iterator[Measurement] = module.measurements(sizes, results.folder)
    for each in measurements:
        name = f"{part.letter}-{each.name}"
        if results.settled(name):
            continue
        seconds = each.seconds * sizes.share
        left = end - time.time()
        if left < seconds:
            results.skipped(name, f"takes about {seconds:.0f} s, and {max(left, 0.0):.0f} s were left for it")
            say(f"{name}: skipped, {left:.0f} s left")
            continue
        measure(name, each, seconds, results, sizes.slack)


def measure(name: str, each: Measurement, seconds: float, results: Results, slack: float) -> None:
    """One measurement: its values or its fault go on record before anything else happens."""
    results.begin(name)
    faulthandler.dump_traceback_later(slack + PATIENCE * seconds, exit=True)  # a thread of its own: no hang escapes it
    started = time.perf_counter()
    try:
        values = each.run()
    except Exception as error:  # whatever a library raises is a result
        results.failed(name, time.perf_counter() - started, error)
        say(f"{name}: failed, {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if context_is_lost(error):
            sys.exit(GO_ON)
    else:
        results.done(name, time.perf_counter() - started, values)
        say(f"{name}: {time.perf_counter() - started:.1f} s")
    finally:
        faulthandler.cancel_dump_traceback_later()
    free()


def context_is_lost(error: BaseException) -> bool:
    """Whether a fault on the device has ended all work of this process there; a lack of memory has not."""
    text = str(error)
    return ("CUDA error" in text or "CUDA driver error" in text) and "out of memory" not in text


def free() -> None:
    """Give back what the last measurement held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
