"""Removes a node of a Ray cluster while a real study runs on it; nothing may be lost, doubled or left running.

    qtarget quickstart --folder WORLD       # builds the study; stop it once its first trial runs
    python benchmarks/node_drill.py WORLD/seed-0/study.yaml OUT --trials 4 --steps 40 --problems 64

runs the first baselines of the study twice into OUT, without pruning: on this host, and on a local cluster of two
nodes. One node is removed when a trial on each of them has a checkpoint, and another one joins `--away` seconds later.
Compares every trial bit for bit, and looks for what is left RUNNING or doubled. Prints a JSON report; exit 1 when
anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from crash_drill import command, compare, write_variant
from ray.cluster_utils import Cluster

from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
PATIENCE = 600.0
"""Seconds to wait for two checkpoints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--away", type=float, default=10.0)
    for name in ("trials", "steps", "problems"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    changes = {"trials": given.trials, "steps": given.steps, "problems": given.problems}
    calm, lost = (without_pruning(write_variant(given.study, given.out, name, **changes)) for name in ("calm", "lost"))
    subprocess.run(command(calm), check=True, stdout=subprocess.DEVNULL)
    print("undisturbed run is through", file=sys.stderr)
    report = drill(calm, lost, given.away)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def without_pruning(study: Path) -> Path:
    """What a trial comes to must not depend on which ended before it."""
    data = yaml.safe_load(study.read_text("utf-8"))
    data["search"] = {**data.get("search", {}), "pruner": "none"}
    data["evaluation"].pop("racing", None)
    study.write_text(yaml.safe_dump(data))
    return study


def drill(calm: Path, lost: Path, away: float) -> dict[str, Any]:
    """Run the study on two nodes, remove one, add another; what came of it."""
    config, begun = load_study(lost), time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    node = cluster.add_node(**NODE)
    try:
        with subprocess.Popen([*command(lost), "--ray", cluster.address], stdout=subprocess.DEVNULL) as run:
            wait_for_two(config.study_folder, run)
            cluster.remove_node(node, allow_graceful=False)  # it falls silent
            time.sleep(away)
            cluster.add_node(**NODE)
            status = run.wait()
        left = [process.pid for process in psutil.process_iter() if works_on(process, config.study_folder)]
    finally:
        cluster.shutdown()
    faults = [f"exit status {status}"] * bool(status) + [f"process {pid} is left" for pid in left]
    chains = {record.number: [link["why"] for link in record.chain] for record in load_history(config) if record.chain}
    seconds = round(time.monotonic() - begun, 1)
    return {"chains": chains, "seconds": seconds, **compare(load_study(calm), config, faults)}


def wait_for_two(folder: Path, run: subprocess.Popen[bytes]) -> None:
    """Until two unfinished trials have a checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while len([trial for trial in folder.glob("trials/*") if is_under_way(trial)]) < 2:
        if run.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("no two trials had a checkpoint at the same time; give them more steps")
        time.sleep(0.05)


def is_under_way(trial: Path) -> bool:
    return not (trial / "result.json").exists() and any(trial.glob("checkpoint/*.safetensors"))


def works_on(process: psutil.Process, folder: Path) -> bool:
    try:
        return "qtarget.search.engine.main" in process.cmdline() and str(folder) in process.cmdline()
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
