"""Many supervisors on one storage, killed and restarted all the time: each slot must be done once.

    python benchmarks/many_workers.py OUT --storage postgresql --workers 4 --trials 200 --kills 40 --restarts 1
    python benchmarks/many_workers.py OUT --storage sqlite --workers 6 --trials 200 --kills 40

Trials take milliseconds (an engine without a model). Every second one worker is killed with SIGKILL and another one
started; `--restarts` times the server crashes and comes back. `--pruner asha`: trials pause at rungs and are promoted
by whoever is free, and no more steps may be granted than the budget has. Prints a JSON report; exit 1 when anything is
wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "tests")
)  # the engine without a model, and the server of one's own

from postgres import Server, postgres_server
from scripted_engine import FINGERPRINTS
from scripted_study import scripted
from small_study import small_config

from qtarget.search.loop.plan import first_slots
from qtarget.search.loop.supervisor import join_study
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.store.queue import Queue
from qtarget.search.store.storage import sqlite_url
from qtarget.search.store.study import open_study
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.search.study.events import Event, TrialEnded
from qtarget.search.terminal.rungs import steps

FORK = multiprocessing.get_context("fork")
"""A worker that is forked works at once; one that had to import everything would be killed before it did."""


class Told:
    """Listener that writes down which trials were told by whom."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def on_event(self, event: Event) -> None:
        if isinstance(event, TrialEnded) and event.state not in ("interrupted", "paused"):
            with self._log.open("a") as log:
                log.write(f"{event.number}\n")

    def close(self) -> None:
        pass


def work(url: str, base: Path) -> None:
    join_study(url, "drill", [Told(base / "told")], base=base, launch=scripted)


@dataclass
class Drill:
    """What is done to whom."""

    workers: int
    kills: int
    restarts: int
    between: float
    """Seconds from kill to kill."""
    seed: int
    pruner: str = "none"


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
    parser.add_argument("--pruner", choices=("none", "asha"), default="none")
    given = parser.parse_args()
    drill = Drill(given.workers, given.kills, given.restarts, given.between, given.seed, given.pruner)
    report = run_drill(given.out.absolute(), given.storage, given.trials, drill)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def run_drill(out: Path, storage: str, trials: int, drill: Drill) -> dict[str, Any]:
    """Create the study, let killed and restarted workers finish it, and look for what went wrong."""
    out.mkdir(parents=True, exist_ok=True)
    with opened(out, storage) as (url, server):
        config = create(out, url, trials, drill.pruner)
        started = time.monotonic()
        done = under_fire(config, url, server, drill)
        seconds = time.monotonic() - started
        records, told = load_history(config), (out / "told").read_text().split()
    chains = Counter(link["why"] for record in records for link in record.chain)
    wrong = [f"{done['workers refused']} workers failed"] if done["workers refused"] and server is None else []
    return {
        "storage": storage,
        "seconds": round(seconds, 1),
        **done,
        "trials": len(records),
        "put back": dict(chains),
        "states": dict(Counter(record.state for record in records)),
        "faults": wrong + faults(records, trials, told) + overdrawn(config, records),
    }


@contextmanager
def opened(out: Path, storage: str) -> Iterator[tuple[str, Server | None]]:
    if storage == "sqlite":
        yield sqlite_url(out / "study.db"), None
    else:
        with postgres_server() as server:
            yield server.url, server


def create(out: Path, url: str, trials: int, pruner: str) -> StudyConfig:
    """The study with all its slots, waiting."""
    search = {**small_config()["search"], "trials": trials, "pruner": pruner, "sampler": "random"}
    search |= {"rungs": [0.25, 0.5]} if pruner == "asha" else {}
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
    chance, kills, restarts, refused = random.Random(drill.seed), 0, 0, 0
    workers = [start(config, url) for _ in range(drill.workers)]
    while any(worker.is_alive() for worker in workers):
        time.sleep(drill.between)
        alive = [index for index, worker in enumerate(workers) if worker.is_alive()]
        if kills < drill.kills and alive:
            victim = chance.choice(alive)
            workers[victim].kill()
            workers[victim].join()
            kills += 1
            workers[victim] = start(config, url)
        for index, worker in enumerate(workers):
            if worker.exitcode:  # it came while the server was away, and was told so
                refused += 1
                workers[index] = start(config, url)
        if server is not None and restarts < drill.restarts and kills >= drill.kills * (restarts + 1) / 2:
            server.stop()
            time.sleep(2.0)
            server.start()
            restarts += 1
    return {"kills": kills, "server restarts": restarts, "workers refused": refused}


def start(config: StudyConfig, url: str) -> ForkProcess:
    process = FORK.Process(target=work, args=(url, config.base_folder))
    process.start()
    return process


def faults(records: list[TrialRecord], trials: int, told: list[str]) -> list[str]:
    """Slots lost, doubled, left running or told twice, and attempts without a reason."""
    pauses = any(each.granted is not None for each in records)
    found = [f"{len(records)} slots, not {trials}"] if len(records) != trials and not pauses else []
    ends = ("complete", "paused") if pauses else ("complete",)
    found += [f"trial {each.number} is {each.state}" for each in records if each.state not in ends]
    found += [f"trial {number} was told {count} times" for number, count in Counter(told).items() if count > 1]
    return found + [
        f"trial {each.number} had {each.attempts} attempts for {len(each.chain)} reasons to try again"
        for each in records
        if each.attempts != len(each.chain) + 1
    ]


def overdrawn(config: StudyConfig, records: list[TrialRecord]) -> list[str]:
    """Steps beyond the budget, and steps that are left though something could go on with them."""
    found = steps(config, records)
    if found is None:
        return []
    left = [f"{found['budget'] - found['spent']} steps are left"] if found["more"] else []
    return [f"{found['spent']} steps of {found['budget']}"] * (found["spent"] > found["budget"]) + left


if __name__ == "__main__":
    main()
