"""The embedded study: build the tiny world in a process of its own (it needs torch), then run its study file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from ..campaign.session import run_file
from ..launchers.helper import run
from ..terminal.progress import phases


def run_quickstart(folder: Path, seed: int, console: Console, trials: int | None = None) -> dict[str, Any]:
    """Build the world under `folder` unless it is there, then create or resume its study; returns the summary.

    Raises RuntimeError with the builder's last words when the world cannot be built.
    """
    # Matrices this small gain nothing from threads, and sums over another number of threads round differently: with
    # one, every machine with these libraries finds the same winner.
    os.environ["OMP_NUM_THREADS"] = "1"
    world = folder / f"seed-{seed}"
    console.print(
        "A tiny language model learned clean addition. Its demonstrations come in a new answer format and a share of "
        "their digits is wrong.\nWhich target, between copying the demonstrations and trusting a teacher, learns the "
        "format without the errors?"
    )
    build_world(world, seed, console)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return run_file(world / "study.yaml", console, trials=trials, confirmation_workers=min(2, cores))


def build_world(world: Path, seed: int, console: Console) -> None:
    """Run the world builder and show its progress; it reuses a finished world and rebuilds a torn one."""
    command = [sys.executable, "-m", "qtarget.evaluation.tiny_world.world", str(world), "--seed", str(seed)]
    with phases(console) as hear:
        run("the tiny world", command, hear)
