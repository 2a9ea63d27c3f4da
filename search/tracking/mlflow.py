"""MLflow, written from events and never read back into the study: a parent run a study, a child run a trial.

A thread replays the spool; when the server is down or slow, events wait on disk. Metrics carry the time at which they
happened, so that a replay after a crash writes the same rows again instead of new ones.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..study.events import Event
from ..study.redaction import redact
from ..study.trial import trial_folder
from .moves import follow_folder
from .spool import Entry, EventSpool, Logged, open_spool, orphans

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
STALL_SECONDS = 12.0
"""At the end of a study: a store that has taken nothing for so long is not waited for."""
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "infeasible": "FAILED", "failed": "FAILED"}
_TAG_LIMIT, _PARAM_LIMIT, _BATCH = 5000, 6000, 900


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; None and empty values are left out."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        elif item not in (None, [], (), ""):
            flat[f"{prefix}{key}"] = item
    return flat


class MlflowTracking:
    """Listener that spools every event and delivers it to MLflow from a thread of its own."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        study: str,
        folder: Path,
        *,
        key: str | None = None,
        drain_seconds: float = 60.0,
    ) -> None:
        """`key`: what the study's runs are found by; default: its name in its folder."""
        self._folder, self._spool, self._logged = folder, open_spool(folder), Logged(folder)
        self._writer = MlflowWriter(uri, experiment, study, folder, key or f"{study}@{folder.resolve()}")
        self._drain_seconds = drain_seconds
        self._wake, self._closing = threading.Event(), threading.Event()
        self.failure: str | None = None
        """Why the last delivery did not go through; None after a success."""
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        if self._logged.is_new(event):
            self._spool.append(event)
            self._wake.set()

    def close(self) -> None:
        """Wait for the backlog while it shrinks, at most `drain_seconds`; what is left goes out at the next start."""
        self._closing.set()
        self._wake.set()
        deadline, left = time.monotonic() + self._drain_seconds, -1
        while self._thread.is_alive() and time.monotonic() < deadline and left != self._spool.backlog_bytes():
            left = self._spool.backlog_bytes()
            self._thread.join(min(self._drain_seconds, STALL_SECONDS))
        if self._spool.backlog_bytes():
            log.warning("MLflow did not take %d bytes of events (%s); they are kept in %s and sent at the next start",
                        self._spool.backlog_bytes(), self.failure or "too slow", self._spool.path)  # fmt: skip
        self._spool.close()

    def _deliver(self) -> None:
        pause, last = 1.0, False
        while not last:
            self._wake.wait(pause)
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                self._deliver_backlog()
                pause, self.failure = 1.0, None
            except Exception as error:
                pause, self.failure = min(30.0, pause * 2), redact(f"{type(error).__name__}: {error}")
            last = closing and (self.failure is not None or not self._spool.backlog_bytes())
            self._closing.wait(1.0)  # let a few more steps arrive: one batch is cheaper than many

    def _deliver_backlog(self) -> None:
        """What processes that died have left, then our own."""
        for spool in orphans(self._folder):
            with closing(spool):
                self._deliver_from(spool)
        self._spool.flush()
        self._deliver_from(self._spool)

    def _deliver_from(self, spool: EventSpool) -> None:
        while entries := list(spool.undelivered()):
            for _, group in itertools.groupby(entries, key=lambda entry: (entry.kind, entry.data.get("number"))):
                batch = list(group)
                self._writer.write(batch)
                spool.mark_delivered(batch[-1].end)


class MlflowWriter:
    """Turns spooled events into runs, parameters and metrics, each made once and found again by its tags."""

    def __init__(self, uri: str, experiment: str, study: str, folder: Path, key: str) -> None:
        self._uri, self._experiment, self._study, self._folder = uri, experiment, study, folder
        self._key = key.replace("'", "")
        self._runs: dict[int | None, str] = {}

    def write(self, entries: list[Entry]) -> None:
        """Deliver entries of one kind and one trial, in order."""
        if entries[0].kind == "StepDone":
            self._log_steps(entries)
        else:
            for entry in entries:
                getattr(self, f"_on_{entry.kind}", lambda entry: None)(entry)

    def _on_StudyStarted(self, entry: Entry) -> None:
        run = self._run(None, entry, self._study)
        self._client.update_run(run, status="RUNNING")
        self._log_params(run, entry.data["config"])
        self._end_left(entry)

    def _on_TrialStarted(self, entry: Entry) -> None:
        data = entry.data
        run = self._run(data["number"], entry, f"{data['number']:03d} {data['title']}")
        self._client.update_run(run, status="RUNNING")
        self._client.set_tag(run, "qtarget.attempts", str(data["attempt"]))
        self._log_params(run, data["spec"])

    def _log_steps(self, entries: list[Entry]) -> None:
        self._log_metrics(
            self._run(entries[0].data["number"], entries[0]),
            ((f"train/{key}", value, entry.milliseconds, entry.data["step"])
             for entry in entries for key, value in entry.data["metrics"].items()),
        )  # fmt: skip

    def _on_RungScored(self, entry: Entry) -> None:
        names = {"score": "score", "standard_error": "score_standard_error"}
        metrics = ((name, entry.data[key], entry.milliseconds, entry.data["step"]) for key, name in names.items())
        self._log_metrics(self._run(entry.data["number"], entry), metrics)

    def _on_TrialEnded(self, entry: Entry) -> None:
        data = entry.data
        run = self._run(data["number"], entry)
        self._log_final(run, data["number"], data["result"] or {}, entry)
        self._client.set_tag(run, "qtarget.state", data["state"])
        if data["reason"]:
            self._client.set_tag(run, "qtarget.reason", redact(str(data["reason"]))[:_TAG_LIMIT])
        self._client.set_terminated(run, _STATUS.get(data["state"], "KILLED"), entry.milliseconds)

    def _log_final(self, run: str, number: int, result: Mapping[str, Any], entry: Entry) -> None:
        """Numbers of a result, stamped with its file's time: told again by another process, they are the same rows."""
        path = trial_folder(self._folder, number).path / "result.json"
        moment = path.stat().st_mtime_ns // 1_000_000 if path.exists() else entry.milliseconds
        flat = flatten(result).items()
        rows = ((f"final/{key}", item, moment, 0) for key, item in flat if isinstance(item, int | float))
        self._log_metrics(run, rows)

    def _end_left(self, entry: Entry) -> None:
        """End the runs of trials that were told, by a process that died before it could say so here."""
        query = f"tags.`qtarget.study` = '{self._key}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self._experiment_id], query):
            number = run.data.tags["qtarget.trial"]
            state = entry.data.get("ended", {}).get(number)
            if state is not None:
                result = trial_folder(self._folder, int(number)).result or {}
                self._log_final(run.info.run_id, int(number), result, entry)
                self._client.set_tag(run.info.run_id, "qtarget.state", state)
                self._client.set_terminated(run.info.run_id, _STATUS.get(state, "KILLED"), entry.milliseconds)

    def _on_StudyEnded(self, entry: Entry) -> None:
        run = self._run(None, entry)
        self._end_left(entry)
        summary = flatten(entry.data["summary"])
        for name in ("winner.score", "winner.standard_error", "sft.score", "seconds"):
            if name in summary:
                self._log_ending(run, f"study/{name}", summary[name], entry.milliseconds)
        for name in ("winner.number", "winner.title"):
            if name in summary:
                self._client.set_tag(run, f"qtarget.{name}", str(summary[name])[:_TAG_LIMIT])
        status = {"finished": "FINISHED", "stopped": "KILLED"}.get(entry.data["state"], "FAILED")
        self._client.set_terminated(run, status, entry.milliseconds)

    def _log_ending(self, run: str, name: str, value: float, milliseconds: int) -> None:
        """One point for each call that ended the study, also when it is delivered twice."""
        past = self._client.get_metric_history(run, name)
        if all(each.timestamp != milliseconds for each in past):
            self._log_metrics(run, [(name, value, milliseconds, len(past))])

    def _log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Parameters are immutable in MLflow: those already there stay as they were first written."""
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params
        new = [Param(key, str(item)[:_PARAM_LIMIT]) for key, item in flatten(values).items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(run, params=new[start : start + 100])

    def _log_metrics(self, run: str, rows: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(key, float(value), milliseconds, step) for key, value, milliseconds, step in rows]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + _BATCH])

    def _run(self, number: int | None, entry: Entry, name: str | None = None) -> str:
        """Id of the trial's run (None: the study's), looked up by tags and made when there is none."""
        if number not in self._runs:
            parent = None if number is None else self._run(None, entry, self._study)
            with FileLock(self._folder / "tracking.lock"):
                self._runs[number] = self._find(number) or self._create(number, entry, name, parent)
        return self._runs[number]

    def _find(self, number: int | None) -> str | None:
        """The trial's run; of several, which takes two hosts in one moment, the first, and the others are deleted."""
        trial = "study" if number is None else str(number)
        query = f"tags.`qtarget.study` = '{self._key}' and tags.`qtarget.trial` = '{trial}'"
        runs = self._client.search_runs([self._experiment_id], query)
        ids = [str(run.info.run_id) for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))]
        for surplus in ids[1:]:
            self._client.delete_run(surplus)
        return ids[0] if ids else None

    def _create(self, number: int | None, entry: Entry, name: str | None, parent: str | None) -> str:
        tags = {"qtarget.study": self._key, "qtarget.trial": "study" if number is None else str(number)}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        self._client.create_run(self._experiment_id, entry.milliseconds, tags, name or f"trial {number}")
        found = self._find(number)
        assert found is not None
        return found

    @property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(self._experiment, artifact_root(self._uri, self._folder)))

    @property
    def _client(self) -> MlflowClient:
        if not hasattr(self, "_made_client"):
            self._made_client = connect(self._uri, self._folder)
        return self._made_client


def artifact_root(uri: str, folder: Path) -> str | None:
    """Where artifacts of an experiment lie: beside a local store, not where the command was called; else its choice."""
    return (folder.resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None


def connect(uri: str, folder: Path) -> MlflowClient:
    """Client of a tracking store; a local store's tables are made once, under a lock (creation races otherwise)."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # standard output belongs to the program: `--json` prints one document there
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])  # it may have been imported before
    with FileLock(folder / "tracking.tables.lock"):
        _make_tables(uri)
        follow_folder(uri, folder)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _make_tables(uri: str) -> None:
    """Make a new SQLite store beside its place and move it there: one whose making was killed is beyond repair."""
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part-{os.getpid()}")
    MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.replace(path)
    for left in path.parent.glob(f"{path.name}.part-*"):
        left.unlink()
