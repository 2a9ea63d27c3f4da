"""Kills engine and supervisor of a real study at random moments; nothing may be lost, doubled or left running.

    python benchmarks/crash_drill.py STUDY.yaml OUT --kills 30 --seed 0

runs the study twice into OUT: undisturbed, and under a killer. Compares every trial bit for bit, and looks for trials
left RUNNING in Optuna and runs left RUNNING or doubled in MLflow. Prints a JSON report; exit 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml

from qtarget.search.config import StudyConfig
from qtarget.search.config_file import load_study
from qtarget.search.history import TrialRecord, load_history
from qtarget.search.session import tracking_uri


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mean-seconds", type=float, default=3.0, help="mean time from a sign of life to a kill")
    arguments = parser.parse_args()
    calm = write_variant(arguments.study, arguments.out, "undisturbed")
    fired = write_variant(arguments.study, arguments.out, f"killed-{arguments.seed}")
    subprocess.run(command(calm), check=True, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    kills = run_under_fire(fired, random.Random(arguments.seed), arguments.kills, arguments.mean_seconds)
    report = {
        "kills": dict(Counter(kills)),
        "seconds": round(time.monotonic() - started, 1),
        "undisturbed_seconds": round(sum(record.seconds or 0 for record in load_history(load_study(calm))), 1),
        **compare(load_study(calm), load_study(fired)),
    }
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def write_variant(study: Path, out: Path, name: str) -> Path:
    """The same study with a name and a folder of its own."""
    data = yaml.safe_load(study.read_text("utf-8"))
    folder = out.absolute() / name
    path = out / f"{name}.yaml"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump({**data, "base": str(study.parent.absolute()), "study": name, "folder": str(folder)})
    )
    return path


def command(study: Path) -> list[str]:
    return [sys.executable, "-m", "qtarget.search.cli", "run", str(study)]


def run_under_fire(study: Path, chance: random.Random, kills: int, mean_seconds: float) -> list[str]:
    """Start the study again and again until it finishes; who was killed, in order."""
    killed: list[str] = []
    while True:
        with subprocess.Popen(command(study), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as supervisor:
            while supervisor.poll() is None and len(killed) < kills:
                if chance.random() < 0.8:  # else it may die while it starts
                    wait_for_progress(supervisor, study)
                time.sleep(chance.expovariate(1 / mean_seconds))
                killed += kill_one(supervisor, chance)
            _, errors = supervisor.communicate()
        if supervisor.returncode == 0:
            return killed
        if supervisor.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the study failed with {supervisor.returncode}: {errors.decode()[-2000:]}")


def wait_for_progress(supervisor: subprocess.Popen[bytes], study: Path) -> None:
    """Until a trial writes something, or the study ends."""
    trials = load_study(study).study_folder / "trials"
    begun = time.time()
    while supervisor.poll() is None:
        if any(path.stat().st_mtime > begun for path in trials.glob("*/*.jsonl")):
            return
        time.sleep(0.05)


def kill_one(supervisor: subprocess.Popen[bytes], chance: random.Random) -> list[str]:
    """SIGKILL the engine or the supervisor, whichever chance names and lives."""
    try:
        main_process = psutil.Process(supervisor.pid)
        engines = [child for child in main_process.children() if "qtarget.search.engine" in " ".join(child.cmdline())]
        victim, name = (engines[0], "engine") if engines and chance.random() < 0.5 else (main_process, "supervisor")
        victim.kill()
    except psutil.Error:  # it has just ended
        return []
    return [name]


def compare(calm: StudyConfig, fired: StudyConfig) -> dict[str, Any]:
    """What is wrong after the drill, and what it cost."""
    expected, found = load_history(calm), load_history(fired)
    faults = [f"{len(found)} slots, not {len(expected)}"] if len(found) != len(expected) else []
    faults += [
        f"trial {ours.number}: {outcome(ours)} instead of {outcome(theirs)}"
        for ours, theirs in zip(found, expected, strict=False)
        if outcome(ours) != outcome(theirs)
    ]
    faults += mlflow_faults(fired, len(found))
    return {
        "slots": len(found),
        "states": dict(Counter(record.state for record in found)),
        "attempts": sum(record.attempts for record in found),
        "faults": faults,
    }


def outcome(record: TrialRecord) -> tuple[object, ...]:
    return (
        record.state,
        record.score,
        record.standard_error,
        sorted(record.rungs.items()),
        sorted(record.parameters.items()),
    )


def mlflow_faults(config: StudyConfig, trials: int) -> list[str]:
    """Runs left running, and more or fewer runs than trials."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(config))
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
        if run.data.tags.get("mlflow.parentRunId")
    ]
    faults = [f"MLflow run {run.info.run_name} is {run.info.status}" for run in runs if run.info.status == "RUNNING"]
    return faults + ([f"{len(runs)} MLflow runs for {trials} trials"] if len(runs) != trials else [])


if __name__ == "__main__":
    main()
