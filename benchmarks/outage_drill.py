"""Kills the MLflow server for half a study; afterwards it must hold every metric, once, in order.

    python benchmarks/outage_drill.py OUT --trials 16

runs a real `mlflow server` on SQLite and a study whose engine has no model. The server is killed with SIGKILL when a
quarter of the trials is through and started again when three quarters are. Prints a JSON report; exit 1 when anything
is missing, doubled or out of order, or when a trial waited for the server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the engine without a model

from postgres import free_port
from scripted_study import scripted
from small_study import small_config

from qtarget.search.loop.supervisor import run_study
from qtarget.search.study.config_file import parse_study
from qtarget.search.study.events import Event, TrialEnded
from qtarget.search.tracking.mlflow import MlflowTracking

STEPS = 8


class MlflowServer:
    """A real tracking server on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = f"sqlite:///{self._folder}/server.db"
        address = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *address]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes of their own
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=self._folder, env=environment
            )

    def wait(self, seconds: float = 120.0) -> None:
        """Until it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(f"the MLflow server did not come up; see {self._folder}/server.log")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()


class Outage:
    """Listener that takes the server away and brings it back as trials end."""

    def __init__(self, server: MlflowServer, trials: int) -> None:
        self._server, self._moments = server, {trials // 4: server.kill, 3 * trials // 4: server.start}
        self._ended = 0

    def on_event(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self._ended += 1
            self._moments.get(self._ended, lambda: None)()

    def close(self) -> None:
        self._server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a trial")
    given = parser.parse_args()
    report = run_drill(given.out.absolute(), given.trials, given.seconds)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["faults"]))


def run_drill(out: Path, trials: int, seconds: float) -> dict[str, Any]:
    """The study with its outage, and what the server holds afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    server = MlflowServer(out)
    server.start()
    server.wait()
    search = {**small_config()["search"], "trials": trials, "pruner": "none", "sampler": "random"}
    config = parse_study(small_config(study="outage", search=search) | {"base": str(out)})
    config.study_folder.mkdir(parents=True, exist_ok=True)
    (config.study_folder / "script.json").write_text(json.dumps({"seconds": seconds, "all_steps": True}))
    try:
        tracking = MlflowTracking(server.uri, "outage", "outage", config.study_folder)
        summary = run_study(config, [Outage(server, trials), tracking], launch=scripted)
        found = faults(server.uri, trials)
    finally:
        server.kill()
    lost = [] if summary.state == "finished" else [f"the study is {summary.state}"]
    lost += [f"not delivered: {tracking.failure}"] if tracking.failure else []
    return {"trials": trials, "study seconds": round(summary.seconds, 1), "faults": lost + found}


def faults(uri: str, trials: int) -> list[str]:
    """Runs that are missing, doubled or not ended, and histories with gaps, repetitions or disorder."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {}
    found = []
    for run in client.search_runs(experiments, max_results=5000):
        trial = run.data.tags["qtarget.trial"]
        found += [f"trial {trial} has two runs"] if trial in runs else []
        found += [f"run {trial} is {run.info.status}"] if run.info.status != "FINISHED" else []
        runs[trial] = run
    for number in range(trials):
        run = runs.get(str(number))
        if run is None:
            found.append(f"trial {number} has no run")
            continue
        history = client.get_metric_history(run.info.run_id, "train/loss")
        losses = [(metric.step, metric.value) for metric in history]
        if losses != [(step, 1.0 / step) for step in range(1, STEPS + 1)]:
            found.append(f"trial {number} has losses {losses}")
        scores = client.get_metric_history(run.info.run_id, "score")
        found += [f"trial {number} has {len(scores)} scores"] if len(scores) != 1 else []
    return found


if __name__ == "__main__":
    main()
