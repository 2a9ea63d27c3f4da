"""Part g: two engines on one GPU against one; an engine killed inside a kernel; an engine without enough memory."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from qtarget.search.launchers.process import EngineProcess

from .made import Sizes
from .run import Measurement
from .studies import LONGEST, built_world, run_study, write_study

ROOT = Path(__file__).resolve().parents[2]
KILLED_AT = 4
"""Optimiser steps reported before the blow falls; the GPU is busy with the next by then."""
LOSS_GAP = 1e-3
NO_CONFIRMATION: dict[str, Any] = {"automatic": False}


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    yield Measurement("killed", 45, lambda: killed(sizes, folder))
    yield Measurement("two-engines", 60, lambda: two_engines(sizes, folder))
    if torch.cuda.is_available():
        yield Measurement("engine-memory", 45, lambda: engine_memory(folder))


def two_engines(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """The same trials by one engine and by two. Start-up, which a night pays once, is told apart."""
    found: dict[str, Any] = {}
    world = built_world(sizes, folder)
    for workers in (1, 2):
        cut = {**sizes.study, "trials": sizes.trials}
        study = write_study(sizes, world, f"engines-{workers}", cut, confirmation=NO_CONFIRMATION)
        told, seconds = run_study(study, LONGEST, "--workers", str(workers))
        if told.get("state") != "finished":
            raise TimeoutError(f"{workers} engine(s) were stopped after {seconds:.0f} s; the next call goes on")
        found[f"seconds_{workers}"] = seconds
        found[f"working_seconds_{workers}"] = working_seconds(Path(told["folder"]))
    return found | {"gain": found["working_seconds_1"] / found["working_seconds_2"]}


def working_seconds(study: Path) -> float:
    """From the first step of any trial to the last result, by the times of their files."""
    specs = [path.stat().st_mtime for path in study.glob("trials/*/spec.json")]
    results = [path.stat().st_mtime for path in study.glob("trials/*/result.json")]
    if not specs or not results:
        raise FileNotFoundError(f"{study} holds no finished trial")
    return max(results) - min(specs)


class KilledOnce(EngineProcess):
    """An engine that SIGKILL takes in the middle of a step; those after it live."""

    blows = 0

    def receive(self) -> Iterator[Any]:
        for message in super().receive():
            yield message
            if message["type"] == "step" and message["step"] >= KILLED_AT and not KilledOnce.blows:
                KilledOnce.blows += 1
                os.killpg(self.pid, signal.SIGKILL)


def killed(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """A trial whose engine is killed, against the same trial left alone: it resumes and its losses are the same."""
    from qtarget.search.loop.supervisor import run_study as supervise
    from qtarget.search.store.history import load_history
    from qtarget.search.study.config_file import load_study

    world, records = built_world(sizes, folder), {}
    for name, engine in (("calm", EngineProcess), ("killed", KilledOnce)):
        smaller = {**sizes.study, "trials": 1, "steps": max(6, sizes.study.get("steps", 20))}
        study = write_study(sizes, world, name, smaller, baselines=["sft"], confirmation=NO_CONFIRMATION)
        environment: Mapping[str, str] = {"OMP_NUM_THREADS": "1"}
        config = load_study(study)
        supervise(config, launch=lambda place, index, engine=engine, given=environment: engine(place, index, given))
        records[name] = load_history(config)[0]
    losses = {name: _column(record.folder / "metrics.jsonl", "loss") for name, record in records.items()}
    gap = max(abs(one / other - 1) for one, other in zip(losses["killed"], losses["calm"], strict=True))
    return {
        "blows": KilledOnce.blows,
        "attempts": [link["why"] for link in records["killed"].chain],
        "largest_loss_gap": gap,
        "scores": [record.score for record in records.values()],
        "passes": KilledOnce.blows == 1 and bool(records["killed"].chain) and gap <= LOSS_GAP,
    }


def _column(path: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in path.read_text("utf-8").splitlines()]


def engine_memory(folder: Path) -> dict[str, Any]:
    """A study's engine that may take only so much of the GPU: its supervisor halves the micro-batch."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from oom_drill import run_drill

    report: dict[str, Any] = run_drill(folder / "engine-memory", megabytes=96.0)
    return report | {"passes": not report["faults"]}
