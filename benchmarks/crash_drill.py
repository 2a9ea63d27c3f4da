"""Kills engine and supervisor of a real study again and again; nothing may be lost, doubled or left running.

    qtarget quickstart --folder WORLD       # builds the study; stop it once its first trial runs
    python benchmarks/crash_drill.py WORLD/seed-0/study.yaml OUT --kills 30 --trials 8 --steps 40 --problems 64

runs the study twice into OUT: undisturbed, and under a killer that strikes, by turns and by chance, while a trial
trains, is scored, saves its checkpoint, while its result is told, while MLflow is written, while a supervisor starts.
Compares every trial bit for bit, and looks for trials left RUNNING in Optuna, runs left RUNNING or doubled in MLflow,
steps logged twice, and more lost work at a kill than one checkpoint interval. `--pruner asha`: trials pause at rungs,
and must come to the same pauses. Prints a JSON report; exit 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import load_study
from qtarget.search.tracking.address import tracking_uri

PHASES = ("training", "checkpointing", "evaluation", "tracking", "starting", "training", "checkpointing", "tell")
"""Chances are equal; only so many results are ever told, and every trial trains and saves more than once."""
PATIENCE = 60.0
"""Seconds to wait for a phase; then the blow falls wherever the study is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--problems", type=int)
    parser.add_argument("--pruner")
    given = parser.parse_args()
    changes = {"trials": given.trials, "steps": given.steps, "problems": given.problems, "pruner": given.pruner}
    calm = write_variant(given.study, given.out, "undisturbed", **changes)
    fired = write_variant(given.study, given.out, f"killed-{given.seed}", **changes)
    subprocess.run(command(calm), check=True, stdout=subprocess.DEVNULL)
    print("undisturbed run is through", file=sys.stderr)
    killer = Killer(load_study(fired).study_folder, random.Random(given.seed), given.kills)
    report = drill(load_study(calm), load_study(fired), killer, command(fired))
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def drill(calm: StudyConfig, config: StudyConfig, killer: Killer, start: list[str]) -> dict[str, Any]:
    """Let the killer run `start` until its study is finished; what came of it, beside the `calm` one."""
    begun = time.monotonic()
    killer.run(start)
    return {
        "kills": len(killer.blows),
        "by phase": dict(Counter(blow.phase for blow in killer.blows)),
        "by victim": dict(Counter(blow.victim for blow in killer.blows)),
        "steps lost": sum(blow.lost for blow in killer.blows),
        "steps lost at one kill": max((blow.lost for blow in killer.blows), default=0),
        "checkpoint every": config.training.checkpoint_every,
        "seconds": round(time.monotonic() - begun, 1),
        "undisturbed seconds": round(sum(record.seconds or 0 for record in load_history(calm)), 1),
        **compare(calm, config, killer.faults(config.training.checkpoint_every)),
    }


def write_variant(study: Path, out: Path, name: str, **changes: int | str | None) -> Path:
    """The same study with a name and a folder of its own, perhaps smaller, without a confirmation."""
    data = yaml.safe_load(study.read_text("utf-8"))
    data = {**data, "base": str(study.parent.absolute()), "study": name, "folder": str(out.absolute() / name)}
    places = {"trials": "search", "pruner": "search", "steps": "training", "problems": "evaluation"}
    for key, value in changes.items():
        if value is not None:
            data[places[key]] = {**data.get(places[key], {}), key: value}
    if changes.get("pruner"):  # each has its own
        data["search"].pop("rungs", None)
    data["training"] = {**data.get("training", {}), "checkpoint_every": 5}
    data["confirmation"] = {"automatic": False}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def command(study: Path) -> list[str]:
    return [sys.executable, "-m", "qtarget", "run", str(study)]


@dataclass(frozen=True)
class Blow:
    """One kill."""

    phase: str
    victim: str
    lost: int
    """Optimiser steps done and not saved, which have to be done again."""


@dataclass
class Killer:
    """Starts the study again and again, and strikes."""

    folder: Path
    chance: random.Random
    kills: int
    phases: tuple[str, ...] = PHASES
    blows: list[Blow] = field(default_factory=list)

    def run(self, start: list[str]) -> None:
        """Until the study finishes."""
        while True:
            with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as supervisor:
                while supervisor.poll() is None and len(self.blows) < self.kills:
                    self._strike(psutil.Process(supervisor.pid))
                _, errors = supervisor.communicate()
            if supervisor.returncode == 0:
                return
            if supervisor.returncode != -signal.SIGKILL:
                raise RuntimeError(f"the study failed with {supervisor.returncode}: {errors.decode()[-2000:]}")

    def _strike(self, supervisor: psutil.Process) -> None:
        phase = self.chance.choice(self.phases)
        seen, deadline = self._signs(phase), time.monotonic() + PATIENCE
        if phase == "starting":  # somewhere in it, however long it takes here
            deadline = time.monotonic() + self.chance.uniform(0.0, 5.0)
        while self._signs(phase) == seen and time.monotonic() < deadline and lives(supervisor):
            time.sleep(0.001)
        if phase in ("training", "evaluation"):
            time.sleep(self.chance.expovariate(2.0))
        try:
            victim, name = self._victim(supervisor, phase)
            victim.kill()
            while lives(victim):
                time.sleep(0.001)
        except psutil.Error:  # it has just ended
            return
        self.blows.append(Blow(phase, name, self._lost()))
        print(f"{len(self.blows):3d} {phase:<14} {name}", file=sys.stderr)

    def _signs(self, phase: str) -> object:
        """Changes when the study enters, or moves on in, a phase."""
        watched: dict[str, Callable[[], object]] = {
            "training": lambda: self._sizes("*/metrics.jsonl"),
            "evaluation": lambda: (self._sizes("*/items.jsonl"), self._sizes("*/rungs/*.jsonl")),
            "checkpointing": lambda: any(self.folder.glob("trials/*/checkpoint/*.part")),
            "tell": lambda: len(list(self.folder.glob("trials/*/result.json"))),
            "tracking": lambda: self._stat(self.folder / "tracking.offset"),
            "starting": lambda: (self._signs("training"), self._signs("tell")),  # the start is over
        }
        return watched[phase]()

    def _sizes(self, pattern: str) -> int:
        return sum(self._stat(path)[0] for path in self.folder.glob(f"trials/{pattern}"))

    @staticmethod
    def _stat(path: Path) -> tuple[int, int]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns

    def _victim(self, supervisor: psutil.Process, phase: str) -> tuple[psutil.Process, str]:
        children = supervisor.children()
        if children and phase in ("training", "evaluation", "checkpointing") and self.chance.random() < 0.5:
            return children[0], "engine"
        return supervisor, "supervisor"

    def _lost(self) -> int:
        """Steps of the unfinished trials that no checkpoint holds."""
        running = [
            path for path in self.folder.glob("trials/*/metrics.jsonl") if not (path.parent / "result.json").exists()
        ]
        return sum(max(0, last_step(path) - saved_step(path.parent)) for path in running)

    def faults(self, checkpoint_every: int) -> list[str]:
        found = [
            f"{blow.lost} steps lost at a kill of the {blow.victim}"
            for blow in self.blows
            if blow.lost > checkpoint_every
        ]
        return found + ([f"{len(self.blows)} kills, not {self.kills}"] if len(self.blows) < self.kills else [])


def lives(process: psutil.Process) -> bool:
    """Whether it runs: neither gone nor waiting for its parent to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def last_step(metrics: Path) -> int:
    """Of the whole lines."""
    lines = [line for line in metrics.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def saved_step(trial: Path) -> int:
    """Step of the checkpoint, from the header of its safetensors file."""
    path = trial / "checkpoint" / "state.safetensors"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return int(json.loads(file.read(length))["__metadata__"]["step"])


def compare(calm: StudyConfig, fired: StudyConfig, faults: list[str]) -> dict[str, Any]:
    """What is wrong after the drill, `faults` included, and what it cost."""
    expected, found = load_history(calm), load_history(fired)
    faults += [f"{len(found)} slots, not {len(expected)}"] if len(found) != len(expected) else []
    faults += [f"trial {each.number} is {each.state}" for each in found if each.state in ("waiting", "running")]
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
        record.granted,
        record.score,
        record.standard_error,
        sorted(record.rungs.items()),
        sorted(record.parameters.items()),
    )


def mlflow_faults(config: StudyConfig, trials: int) -> list[str]:
    """Runs left running, more or fewer runs than trials, and steps that are logged twice or out of order."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(config))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=5000)
    faults = [f"MLflow run {run.info.run_name} is {run.info.status}" for run in runs if run.info.status == "RUNNING"]
    counts = Counter(run.data.tags["qtarget.trial"] for run in runs)
    faults += [f"MLflow has {count} runs of {trial}" for trial, count in counts.items() if count > 1]
    faults += [f"MLflow has {len(counts)} runs, not {trials + 1}"] if len(counts) != trials + 1 else []
    for run in runs:
        for name in run.data.metrics:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            if steps != sorted(set(steps)):
                faults.append(f"MLflow run {run.info.run_name} has {name} at steps {steps}")
    return faults


if __name__ == "__main__":
    main()
