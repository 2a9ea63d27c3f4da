"""Part d: the quickstart's study from end to end, search and confirmation, as a user runs it.

A call that is cut off goes on where it stopped. The world is built once: `prepare.sh` may have brought it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .made import Sizes
from .run import Measurement

BROUGHT = Path("build/gpu/world")
"""Built where the wheels were collected."""
CHILD = (
    "from qtarget.search.engine.channel import die_with_parent; die_with_parent()\n"
    "from qtarget.search.cli.main import main; main()"
)
"""The command line, in a process that leaves with this one even when this one is killed."""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Matrices this small gain nothing from more."""
LONGEST = 150.0
"""Seconds that a study may take before it is stopped, to go on in the next call."""


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    yield Measurement("quickstart", 60, lambda: quickstart(sizes, folder))


def quickstart(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Verdict and time of the study, and whether the world came along."""
    world = built_world(sizes, folder)
    begun = (world / "runs" / "study").exists()
    found, seconds = run_study(write_study(sizes, world, "study", sizes.study), LONGEST)
    if found.get("state") != "finished":
        raise TimeoutError(f"the study was stopped after {seconds:.0f} s; the next call goes on with it")
    verdict = found.get("confirmation") or {}
    winner = found["winner"] or {}
    return {
        "seconds": seconds,
        "in_one_go": not begun,
        "counts": found["counts"],
        "winner": {name: winner.get(name) for name in ("number", "title", "score")},
        "sft_score": (found["sft"] or {}).get("score"),
        "verdict": {name: verdict[name] for name in ("verdict", "sft_score", "comparisons") if name in verdict},
    }


def built_world(sizes: Sizes, folder: Path) -> Path:
    """The folder of the tiny world: base, teacher, demonstrations, problems, study file."""
    world = folder / "world"
    if (world / "world.json").is_file():
        return world
    brought = BROUGHT / sizes.name
    if (brought / "world.json").is_file():
        shutil.copytree(brought, world, dirs_exist_ok=True)
        return world
    settings = json.dumps(sizes.study.get("world", {}))
    command = ["-m", "qtarget.evaluation.tiny_world.world", str(world), "--seed", "0", "--settings", settings]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, timeout=300, env=ONE_THREAD)
    return world


def write_study(sizes: Sizes, world: Path, name: str, smaller: dict[str, Any], **changes: Any) -> Path:
    """A study on the world, without MLflow; `smaller` cuts it down."""
    data = yaml.safe_load((world / "study.yaml").read_text("utf-8"))
    data |= {"study": name, "tracking": {"uri": "none"}, **changes}
    if "trials" in smaller:
        data["search"]["trials"] = smaller["trials"]
    if "steps" in smaller:
        data["training"] |= {"steps": smaller["steps"], "checkpoint_every": max(1, smaller["steps"] // 2)}
    if "problems" in smaller:
        data["evaluation"] |= {"problems": smaller["problems"], "report_problems": smaller["problems"]}
        data["baselines"] = ["sft", "dft"]
        data["confirmation"] = {"designs": 1, "seeds": 2, **data.get("confirmation", {})}
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    return path


def run_study(study: Path, longest: float, *options: str) -> tuple[dict[str, Any], float]:
    """What `qtarget run --json` says of a study, and the seconds that it took; it is told to stop after `longest`."""
    command = [sys.executable, "-c", CHILD, "run", str(study), "--json", *options]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ONE_THREAD) as process:
        try:
            printed, _ = process.communicate(timeout=longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            printed, _ = process.communicate(timeout=60)
    seconds = time.perf_counter() - started
    try:
        found: dict[str, Any] = json.loads(printed)
    except ValueError as error:
        raise RuntimeError(f"the study said nothing (exit status {process.returncode}); run.log says why") from error
    return found, seconds
