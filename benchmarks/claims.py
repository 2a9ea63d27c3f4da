"""How many claims, reports and endings a second a storage takes from 1, 8 and 64 workers.

    python benchmarks/claims.py --workers 1 8 64 --slots 200 1000 --seconds 8

Each simulated worker is a process with connections of its own, which claims a slot, reports a score at a rung and
finishes the trial, again and again, against a PostgreSQL server started for it (or `--url`). Prints a JSON line each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from optuna.trial import TrialState
from postgres import postgres_server
from small_study import small_config

from qtarget.search.store.queue import Queue, Verdict
from qtarget.search.store.storage import open_storage
from qtarget.search.store.study import Study
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--slots", type=int, nargs="+", default=[200])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--url", help="database to measure, instead of a server of our own")
    given = parser.parse_args()
    with nullcontext() if given.url else postgres_server(connections=400) as server:
        url = given.url or server.url
        print(f"{os.cpu_count()} cores, {given.seconds:g} s each")
        for slots in given.slots:
            for workers in given.workers:
                print(json.dumps(measure(url, workers, slots, given.seconds)), flush=True)


def measure(url: str, workers: int, slots: int, seconds: float) -> dict[str, Any]:
    """Operations a second of `workers` processes on a study with so many slots."""
    config = create(url, f"claims-{workers}-{slots}-{time.time_ns()}", slots)
    context = multiprocessing.get_context("fork")
    start, counts = context.Barrier(workers), context.Queue()
    processes = [context.Process(target=work, args=(config, start, seconds, counts)) for _ in range(workers)]
    for process in processes:
        process.start()
    total: Counter[str] = Counter()
    for _ in processes:
        total.update(counts.get())
    for process in processes:
        process.join()
    elapsed = total.pop("seconds") / workers
    rates = {f"{name} a second": round(count / elapsed, 1) for name, count in total.items() if name != "claiming"}
    return {
        "workers": workers,
        "slots": slots,
        **rates,
        "seconds a claim": round(total["claiming"] / total["claims"], 4),
    }


def create(url: str, name: str, slots: int) -> StudyConfig:
    search = {**small_config()["search"], "trials": slots, "pruner": "none", "sampler": "random"}
    config = parse_study(small_config(study=name, storage=url, search=search))
    storage = open_storage(url, name)
    with closing(storage):
        Study(config, Path(), storage).create({})
        Queue(config, storage).fill([], slots)
    return config


def work(config: StudyConfig, start: Any, seconds: float, counts: Any) -> None:
    """Claim, report and finish until the time is up or no slot is left."""
    assert config.storage is not None
    done: Counter[str] = Counter()
    with closing(open_storage(config.storage, config.study)) as storage:
        queue = Queue(config, storage)
        queue.counts()
        start.wait()
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            asked = time.perf_counter()
            claim = queue.claim()
            if claim is None:
                break
            done["claiming"] += time.perf_counter() - asked  # type: ignore[assignment]
            done["claims"] += 1
            queue.report(claim, 4, 0.5)
            done["reports"] += 1
            queue.finish(claim, Verdict(TrialState.COMPLETE, 0.5))
            done["endings"] += 1
        done["seconds"] = time.perf_counter() - begun  # type: ignore[assignment]
    counts.put(done)


if __name__ == "__main__":
    main()
