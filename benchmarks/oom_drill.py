"""Trains under a memory limit that the full micro-batch breaks: the trial must get through with a smaller one.

    python benchmarks/oom_drill.py OUT --megabytes 160

trains one real trial twice: undisturbed, and in an engine whose address space is limited (RLIMIT_AS: allocations really
fail; with a GPU, its allocator is limited). Prints a JSON report; exit 1 unless the limited trial finished at a smaller
micro-batch, with the same effective batch, the same tokens in every step, and the same losses to 1e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from small_study import small_config, write_small_study

from qtarget.search.launchers.process import EngineProcess
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config_file import load_study

TESTS = Path(__file__).resolve().parents[1] / "tests"
TOLERANCE = 1e-5
MICRO_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=160.0, help="beyond what the loaded engine holds")
    given = parser.parse_args()
    report = run_drill(given.out.absolute(), given.megabytes)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def run_drill(out: Path, megabytes: float, steps: int = 4) -> dict[str, Any]:
    """Both trials, and what differs."""
    calm, limited = train(out / "undisturbed", None, steps), train(out / "limited", megabytes, steps)
    losses = [column(record, "loss") for record in (calm, limited)]
    gap = max((abs(one - other) for one, other in zip(*losses, strict=False)), default=0.0)
    sizes = [json.loads((record.folder / "result.json").read_text())["micro_batch"] for record in (calm, limited)]
    faults = [f"the limited trial is {limited.state}"] if limited.state != "complete" else []
    faults += ["the limit did not bite; lower it"] if sizes[1] >= sizes[0] else []
    faults += [f"losses differ by {gap:.2g}"] if not gap <= TOLERANCE or len(losses[0]) != len(losses[1]) else []
    faults += ["steps saw other tokens"] if column(calm, "tokens") != column(limited, "tokens") else []
    return {
        "micro-batch": sizes,
        "chain": [link["why"] for link in limited.chain],
        "largest loss difference": gap,
        "scores": [calm.score, limited.score],
        "faults": faults,
    }


def train(folder: Path, megabytes: float | None, steps: int) -> TrialRecord:
    """One trial, plain SFT, in an engine with so much room, or in an ordinary one."""
    study = write_small_study(folder, **settings(steps))
    widen(folder)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(TESTS)]),
        "QTARGET_DRILL_MEGABYTES": str(megabytes),
        "MALLOC_ARENA_MAX": "1",  # arenas of threads would count as memory, used or not
    }

    def launch(study_folder: Path, index: int) -> EngineProcess:
        if megabytes is None:
            return EngineProcess(study_folder, index)
        return EngineProcess(study_folder, index, environment, module="limited_engine")

    config = load_study(study)
    run_study(config, launch=launch)
    return load_history(config)[0]


def settings(steps: int) -> dict[str, Any]:
    batch = {"effective_batch": MICRO_BATCH, "micro_batch": MICRO_BATCH}
    training = {**small_config()["training"], "steps": steps, **batch}
    search = {**small_config()["search"], "trials": 1, "pruner": "none"}
    evaluation = {**small_config()["evaluation"], "batch_size": 4}
    return {
        "training": training, "search": search, "evaluation": evaluation, "baselines": ["sft"], "teacher": None,
        "data": {"path": "train.jsonl", "max_length": 256}, "tracking": {"uri": "none"},
    }  # fmt: skip


def widen(folder: Path) -> None:
    """Long demonstrations, whose activations need memory."""
    path = folder / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "prompt": row["prompt"] * 50}) + "\n" for row in rows))


def column(record: TrialRecord, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (record.folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
