"""`qtarget train`: the full run of an exported target, in processes of its own, shown and tracked here."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from ...spaces.errors import UserError
from ..launchers.helper import ask
from ..loop.signals import StopSignals
from ..store.storage import sqlite_url
from ..study.config_file import TRACKING_VARIABLE
from ..study.faults import refusal
from ..study.files import read_json, write_json
from ..study.secrets import filled, redact
from ..study.winner_file import WinnerFile, load_winner
from ..terminal.progress import phases
from ..tracking.address import store_uri
from ..tracking.connection import artifact_root, connect
from ..tracking.names import PARAM_LIMIT, fitting_name, fitting_text, flatten

log = logging.getLogger(__name__)
TRACKING_FILE = "tracking.json"
AGAIN_SECONDS = 60.0
"""Pause after a tracking store did not answer."""


def train_winner(
    path: Path,
    out: Path,
    console: Console,
    *,
    changes: Mapping[str, Any],
    training: Mapping[str, Any],
    ranks: int = 1,
    launch: Path | None = None,
    machine_rank: int = 0,
    tracking: str | None = None,
) -> dict[str, Any]:
    """Train the winner at `path` into `out`; the same command resumes it.

    `changes`: top-level keys of the file to replace; those of `run`, and `training`, join its own. `ranks`: processes
    on this host, started by torchrun; `launch`: an accelerate configuration that says how many and whether FSDP.
    `machine_rank`: number of this host among several that `launch` names; all but the first compute along in silence.
    `tracking`: MLflow store; default MLFLOW_TRACKING_URI, else an SQLite file in `out`; `none` switches it off.

    Raises UserError for a winner, a folder or data that cannot be used.
    """
    winner = load_winner(path)
    own = winner.model_dump(mode="json")
    merged = {
        **changes,
        "run": {**own["run"], **changes.get("run", {})},
        "training": {**own["training"], **training},
        "base": winner.base,
    }
    winner = _changed(winner, merged)
    out.mkdir(parents=True, exist_ok=True)
    file = path / "winner.yaml" if path.is_dir() else path
    request = {"winner": str(file), "out": str(out.absolute()), "changes": merged}
    start = launcher(ranks, launch, machine_rank)
    if machine_rank:
        with StopSignals():  # the first host tells this one when to stop
            ask("train", request, lambda message: None, start=start)
        return {"status": "finished"}
    found = _Listener(out, winner, console, tracking).train(request, start)
    if found["status"] == "stopped":
        console.print(f"Stopped after step {found['step']}; the same command goes on from there.")
    else:
        console.print(f"Trained {found['steps']} steps; the model is in {found['model']}", soft_wrap=True, markup=False)
        if found["report"] is not None:
            shown = found["report"]
            console.print(
                f"{shown['split']} problems: {shown['score']:.3f} ± {shown['standard_error']:.3f}", style="bold"
            )
    return found


def launcher(ranks: int, launch: Path | None, machine_rank: int = 0) -> list[str]:
    """What starts the processes: python itself, torchrun, or accelerate with a configuration."""
    if launch is not None:
        if not launch.is_file():
            raise UserError(f"`--launch` must be an accelerate configuration, but there is no file {launch}")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch)]
        return [*command, "--machine_rank", str(machine_rank)] if machine_rank else command
    if machine_rank:
        raise UserError("`--machine-rank` counts the hosts of an accelerate configuration; give it with `--launch`")
    if ranks > 1:
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    return [sys.executable]


def _changed(winner: WinnerFile, changes: Mapping[str, Any]) -> WinnerFile:
    read = {**winner.model_dump(), **changes}
    try:
        return WinnerFile.model_validate(read)
    except ValidationError as error:
        raise refusal(error, "the options of `qtarget train`", read, WinnerFile) from None


class _Listener:
    """Shows what the training process says, writes it to MLflow, and asks it to stop on Ctrl-C."""

    def __init__(self, out: Path, winner: WinnerFile, console: Console, tracking: str | None) -> None:
        self.console = console
        given = tracking or os.environ.get(TRACKING_VARIABLE)
        given = filled(given, "--tracking") if given else None
        uri = store_uri(given, Path.cwd()) or sqlite_url(out / "mlflow.db")
        self.run = None if uri == "none" else TrackedRun(uri, out, winner)

    def train(self, request: Mapping[str, Any], start: Sequence[str]) -> dict[str, Any]:
        """Run the process to its end; its result. Raises its faults."""
        try:
            with StopSignals() as signals, phases(self.console) as self.show:
                result = ask("train", request, self._hear, start=start, stop=signals)
        except BaseException as error:
            self._end("FAILED")
            if not isinstance(error, UserError):
                self.console.print("The training ended early; the same command goes on from its last checkpoint.")
            raise
        self._end("FINISHED" if result["status"] == "finished" else "KILLED")
        return result

    def _hear(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "started":
            self.console.print(message["data"], soft_wrap=True, markup=False)
            for line in message["warnings"]:
                self.console.print(f"look at    {line}", soft_wrap=True, style="yellow", markup=False)
        elif kind == "step":
            note = f"loss {message['metrics']['loss']:.4g}"
            self.show({"phase": "training", "done": message["step"], "total": message["steps"], "note": note})
        elif kind == "evaluated":
            text = f"step {message['step']}, {message['split']} problems: {message['score']:.3f}"
            self.console.print(f"{text} ± {message['standard_error']:.3f}")
        self.show(message)
        if self.run is not None:
            self.run.hear(message)

    def _end(self, status: str) -> None:
        if self.run is not None:
            self.run.end(status)


class TrackedRun:
    """One MLflow run for one output folder, found again when the training resumes. Never fails the training."""

    def __init__(self, uri: str, out: Path, winner: WinnerFile) -> None:
        self.failure: str | None = None
        self.waiting: list[tuple[str, float, int, int]] = []
        self._place = uri, out, winner
        self._again = 0.0
        self._guarded(self._send)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take note of a step or an evaluation; sent some at a time, and kept while the store is away."""
        now = round(1000 * time.time())
        if message["type"] == "step":
            rows = message["metrics"].items()
            self.waiting += [(fitting_name(f"train/{key}"), float(value), now, message["step"]) for key, value in rows]
        elif message["type"] == "evaluated":
            self.waiting.append((fitting_name(f"{message['split']}/score"), message["score"], now, message["step"]))
        if len(self.waiting) > 400 or message["type"] == "evaluated":
            self._guarded(self._send)

    def end(self, status: str) -> None:
        """Send what is left and close the run."""

        def close() -> None:
            self._send()
            self.client.set_terminated(self.id, status)

        self._again = 0.0
        self._guarded(close)

    def _open(self, uri: str, out: Path, winner: WinnerFile) -> None:
        from mlflow.entities import Param

        self.client = connect(uri, out)
        name = f"{Path(winner.model.path).name} on {winner.data.title}"
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name, artifact_root(uri, out))
        known = read_json(out / TRACKING_FILE) or {}
        self.id = (
            known.get(uri) or self.client.create_run(experiment, run_name=f"train {winner.target.title()}").info.run_id
        )
        self.client.update_run(self.id, status="RUNNING")
        write_json(out / TRACKING_FILE, {**known, uri: self.id})
        logged = self.client.get_run(self.id).data.params
        params = flatten(winner.model_dump(mode="json", exclude={"provenance"})).items()
        given = {fitting_name(key): fitting_text(value, PARAM_LIMIT) for key, value in params}
        new = [Param(key, value) for key, value in given.items() if key not in logged]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.id, params=new[start : start + 100])

    def _send(self) -> None:
        from mlflow.entities import Metric

        if not hasattr(self, "id"):
            self._open(*self._place)
        while self.waiting:
            self.client.log_batch(self.id, metrics=[Metric(*row) for row in self.waiting[:900]])
            del self.waiting[:900]

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do it, unless the store has just been away; whatever it raises is said once and never fails the training."""
        if time.monotonic() < self._again:
            return
        try:
            action()
            self.failure = None
        except Exception as error:
            if self.failure is None:
                log.warning("MLflow is out of reach (%s); the training goes on", redact(f"{error}").partition("\n")[0])
            self.failure, self._again = f"{type(error).__name__}: {error}", time.monotonic() + AGAIN_SECONDS
