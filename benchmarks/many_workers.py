"""Many supervisors on one storage, killed and restarted all the time: each slot must be done once.

    python benchmarks/many_workers.py OUT --storage postgresql --workers 4 --trials 200 --kills 40 --restarts 1
    python benchmarks/many_workers.py OUT --storage sqlite --workers 6 --trials 200 --kills 40

Trials take milliseconds (an engine without a model). Every second one worker is killed with SIGKILL and another one
started; `--restarts` times the server crashes and comes back. Prints a JSON report; exit 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "tests")
)  # the engine without a model, and the server of one's own

from postgres import Server, postgres_server
from scripted_engine import FINGERPRINTS
from small_study import small_config

from qtarget.search.config import StudyConfig
from qtarget.search.config_file import parse_study
from qtarget.search.history import TrialRecord, load_history
from qtarget.search.plan import first_slots
from qtarget.search.queue import Queue
from qtarget.search.storage import sqlite_url
from qtarget.search.study import open_study

TESTS = Path(__file__).resolve().parents[1] / "tests"
WORKER = """
import os, sys
from pathlib import Path
from scripted_study import scripted
from qtarget.search.supervisor import join_study

class Told:
    def on_event(self, event):
        if type(event).__name__ == "TrialEnded" and event.state != "interrupted":
            with open(sys.argv[3], "a") as log:
                log.write(f"{event.number}\\n")
    def close(self): pass

join_study(sys.argv[1], "drill", [Told()], base=Path(sys.argv[2]), launch=scripted)
"""


@dataclass
class Drill:
    """What is done to whom."""

    workers: int
    kills: int
    restarts: int
    between: float
    """Seconds from kill to kill."""
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--storage", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=0, help="of the server")
    parser.add_argument("--between", type=float, default=1.0, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    drill = Drill(given.workers, given.kills, given.restarts, given.between, given.seed)
    report = run_drill(given.out.absolute(), given.storage, given.trials, drill)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def run_drill(out: Path, storage: str, trials: int, drill: Drill) -> dict[str, Any]:
    """Create the study, let killed and restarted workers finish it, and look for what went wrong."""
    out.mkdir(parents=True, exist_ok=True)
    with opened(out, storage) as (url, server):
        config = create(out, url, trials)
        started = time.monotonic()
        done = under_fire(config, url, server, drill)
        seconds = time.monotonic() - started
        records, told = load_history(config), (out / "told").read_text().split()
    chains = Counter(link["why"] for record in records for link in record.chain)
    wrong = [f"{done['workers that failed']} workers failed; see workers.log"] if done["workers that failed"] else []
    return {
        "storage": storage,
        "seconds": round(seconds, 1),
        **done,
        "trials": len(records),
        "put back": dict(chains),
        "faults": wrong + faults(records, trials, told),
    }


@contextmanager
def opened(out: Path, storage: str) -> Iterator[tuple[str, Server | None]]:
    if storage == "sqlite":
        yield sqlite_url(out / "study.db"), None
    else:
        with postgres_server() as server:
            yield server.url, server


def create(out: Path, url: str, trials: int) -> StudyConfig:
    """The study with all its slots, waiting."""
    search = {**small_config()["search"], "trials": trials, "pruner": "none", "sampler": "random"}
    config = parse_study(small_config(study="drill", storage=url, search=search) | {"base": str(out)})
    config.study_folder.mkdir(parents=True, exist_ok=True)
    (config.study_folder / "script.json").write_text(json.dumps({"seconds": 0.02}))
    study = open_study(config)
    with closing(study.storage):
        study.create(FINGERPRINTS)
        Queue(config, study.storage).fill(first_slots(config), trials)
    return config


def under_fire(config: StudyConfig, url: str, server: Server | None, drill: Drill) -> dict[str, int]:
    """Keep so many workers alive until the study is done; kill one now and then."""
    chance, kills, restarts = random.Random(drill.seed), 0, 0
    workers = [start(config, url) for _ in range(drill.workers)]
    while any(worker.poll() is None for worker in workers):
        time.sleep(drill.between)
        alive = [index for index, worker in enumerate(workers) if worker.poll() is None]
        if kills < drill.kills and alive:
            victim = chance.choice(alive)
            workers[victim].kill()
            workers[victim].wait()
            kills += 1
            workers[victim] = start(config, url)
        if server is not None and restarts < drill.restarts and kills >= drill.kills * (restarts + 1) / 2:
            server.stop()
            time.sleep(2.0)
            server.start()
            restarts += 1
    bad = [worker.returncode for worker in workers if worker.returncode]
    return {"kills": kills, "server restarts": restarts, "workers that failed": len(bad)}


def start(config: StudyConfig, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WORKER, url, str(config.base_folder), str(config.base_folder / "told")]
    log = (config.base_folder / "workers.log").open("ab")
    with log:
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=log)


def faults(records: list[TrialRecord], trials: int, told: list[str]) -> list[str]:
    """Slots lost, doubled, left running or told twice, and attempts without a reason."""
    found = [f"{len(records)} slots, not {trials}"] if len(records) != trials else []
    found += [f"trial {each.number} is {each.state}" for each in records if each.state != "complete"]
    found += [f"trial {number} was told {count} times" for number, count in Counter(told).items() if count > 1]
    return found + [
        f"trial {each.number} had {each.attempts} attempts for {len(each.chain)} reasons to try again"
        for each in records
        if each.attempts != len(each.chain) + 1
    ]


if __name__ == "__main__":
    main()
