"""Spooled events become runs, parameters and metrics, each made once and found again by its tags."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..study.secrets import redact
from ..study.trial import trial_folder
from .address import run_key
from .connection import artifact_root, connect, is_refusal
from .describe import EXPERIMENT, NOTE, of_study, of_trial, origin
from .inputs import inputs_of
from .models import log_model
from .names import PARAM_LIMIT, TAG_LIMIT, fitting_name, fitting_text, flatten
from .spool import Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STATUS = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "paused": "FINISHED",
    "infeasible": "FAILED",
    "failed": "FAILED",
}
_BATCH = 900
SCORE = "final/score"
SCORES = (SCORE, "final/standard_error")
"""What is logged of a trial's model."""
BEFORE_TRAINING = -1
"""Step of the score that is not known yet: whatever is logged later is newer."""


class MlflowWriter:
    """Writes the runs of one study."""

    def __init__(self, uri: str, experiment: str, study: str, folder: Path, place: str) -> None:
        """`place`: what the runs of a study without an identity are found by."""
        self._uri, self._experiment, self._study, self._folder, self._place = uri, experiment, study, folder, place
        self._runs: dict[tuple[str, int | None], str] = {}
        self._experiment_id = ""
        self._with_inputs: set[str] = set()
        self._with_models = True

    def open(self) -> None:
        """Reach the store; raises whatever it, or the way to it, raises."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            root = artifact_root(self._uri, self._folder)
            self._experiment_id = str(self._client.create_experiment(self._experiment, root, EXPERIMENT))
            return
        self._experiment_id = str(found.experiment_id)
        if found.lifecycle_stage == "deleted":  # nothing can be written to it, and its name is taken
            self._client.restore_experiment(self._experiment_id)
        for name in EXPERIMENT.keys() - found.tags.keys():
            self._client.set_experiment_tag(self._experiment_id, name, EXPERIMENT[name])

    def write(self, entries: list[Entry]) -> None:
        """Deliver entries of one kind and one trial, in order."""
        try:
            self._write(entries)
        except Exception as error:
            if not is_refusal(error) or not self._revived(entries[0]):
                raise
            self._write(entries)

    def _write(self, entries: list[Entry]) -> None:
        if entries[0].kind == "StepDone":
            self._log_steps(entries)
        else:
            for entry in entries:
                getattr(self, f"_on_{entry.kind}", lambda entry: None)(entry)

    def _revived(self, entry: Entry) -> bool:
        """Whether runs that somebody has deleted meanwhile were refusing: what goes on has its run again."""
        keys = [(self._key(entry), number) for number in {entry.data.get("number"), None}]
        return any([self._revive(key) for key in keys if key in self._runs])

    def _revive(self, key: tuple[str, int | None]) -> bool:
        try:
            if self._client.get_run(self._runs[key]).info.lifecycle_stage != "deleted":
                return False
            self._client.restore_run(self._runs[key])
        except Exception as error:
            if not is_refusal(error):
                raise
            del self._runs[key]  # gone for good: it is made anew
        return True

    def _on_StudyStarted(self, entry: Entry) -> None:
        run = self._run(None, entry, self._study, of_study(entry.data["config"]))
        self._client.update_run(run, status="RUNNING")
        self._log_params(run, entry.data["config"])
        self._end_left(entry)

    def _on_TrialStarted(self, entry: Entry) -> None:
        data = entry.data
        run = self._run(data["number"], entry, f"{data['number']:03d} {data['title']}", of_trial(data["spec"]))
        self._client.update_run(run, status="RUNNING")
        self._tag(run, "attempts", data["attempt"])
        self._log_params(run, data["spec"])
        for each in (run, self._run(None, entry, self._study)):
            self._log_inputs(each, data["spec"])

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
        self._tag(run, "state", data["state"])
        if data["reason"]:
            self._tag(run, "reason", data["reason"])
        self._client.set_terminated(run, _STATUS.get(data["state"], "KILLED"), entry.milliseconds)

    def _log_final(self, run: str, number: int, result: Mapping[str, Any], entry: Entry) -> None:
        """Numbers of a result, stamped with its file's time: told again by another process, they are the same rows."""
        path = trial_folder(self._folder, number).path / "result.json"
        moment = path.stat().st_mtime_ns // 1_000_000 if path.exists() else entry.milliseconds
        flat = flatten(result).items()
        rows = [(f"final/{key}", item, moment, 0) for key, item in flat if isinstance(item, int | float)]
        self._log_metrics(run, rows)
        scores = {name: value for name, value, _, _ in rows if name in SCORES}
        if scores and self._with_models:
            self._with_models = log_model(self._client, self._client.get_run(run), scores, moment)

    def _end_left(self, entry: Entry) -> None:
        """End the runs of trials that were told, by a process that died before it could say so here."""
        query = f"tags.`qtarget.study` = '{self._key(entry)}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([self._experiment_id], query):
            number = run.data.tags["qtarget.trial"]
            state = entry.data.get("ended", {}).get(number)
            if state is not None:
                result = trial_folder(self._folder, int(number)).result or {}
                self._log_final(run.info.run_id, int(number), result, entry)
                self._tag(run.info.run_id, "state", state)
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
                self._tag(run, name, summary[name])
        status = {"finished": "FINISHED", "stopped": "KILLED"}.get(entry.data["state"], "FAILED")
        self._client.set_terminated(run, status, entry.milliseconds)

    def _log_ending(self, run: str, name: str, value: float, milliseconds: int) -> None:
        """One point for each call that ended the study, also when it is delivered twice."""
        past = self._client.get_metric_history(run, name)
        if all(each.timestamp != milliseconds for each in past):
            self._log_metrics(run, [(name, value, milliseconds, len(past))])

    def _tag(self, run: str, name: str, value: object) -> None:
        self._client.set_tag(run, f"qtarget.{name}", fitting_text(redact(str(value)), TAG_LIMIT))

    def _log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Parameters are immutable in MLflow: those already there stay as they were first written."""
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params
        given = {fitting_name(key): fitting_text(item, PARAM_LIMIT) for key, item in flatten(values).items()}
        new = [Param(key, item) for key, item in given.items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(run, params=new[start : start + 100])

    def _log_inputs(self, run: str, spec: Mapping[str, Any]) -> None:
        """The demonstrations and problems of a trial as MLflow's datasets, once a run."""
        if run in self._with_inputs:
            return
        wanted = inputs_of(spec)
        known = self._client.get_run(run).inputs
        if wanted and not (known and known.dataset_inputs):
            self._client.log_inputs(run, wanted)
        self._with_inputs.add(run)

    def _log_metrics(self, run: str, rows: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(fitting_name(key), float(value), milliseconds, step) for key, value, milliseconds, step in rows
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + _BATCH])

    def _key(self, entry: Entry) -> str:
        """What the runs of the study that an entry tells of are found by."""
        return run_key(self._study, self._place, entry.identity)

    def _run(self, number: int | None, entry: Entry, name: str | None = None, note: str = "") -> str:
        """Id of the trial's run (None: the study's), looked up by tags and made when there is none."""
        key = self._key(entry), number
        if key not in self._runs:
            parent = None if number is None else self._run(None, entry, self._study)
            with FileLock(self._folder / "tracking.lock"):
                self._runs[key] = self._find(key) or self._create(key, entry, name, parent, note)
        return self._runs[key]

    def _find(self, key: tuple[str, int | None]) -> str | None:
        """The trial's run; of several, which takes two hosts in one moment, the first, and the others are deleted."""
        study, number = key
        trial = "study" if number is None else str(number)
        query = f"tags.`qtarget.study` = '{study}' and tags.`qtarget.trial` = '{trial}'"
        runs = self._client.search_runs([self._experiment_id], query)
        ids = [str(run.info.run_id) for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))]
        for surplus in ids[1:]:
            self._client.delete_run(surplus)
        return ids[0] if ids else None

    def _create(
        self, key: tuple[str, int | None], entry: Entry, name: str | None, parent: str | None, note: str
    ) -> str:
        study, number = key
        tags = {"qtarget.study": study, "qtarget.trial": "study" if number is None else str(number), **origin()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        if note:
            tags[NOTE] = fitting_text(redact(note), TAG_LIMIT)
        title = fitting_text(name or f"trial {number}", TAG_LIMIT)
        self._client.create_run(self._experiment_id, entry.milliseconds, tags, title)
        found = self._find(key)
        assert found is not None
        if parent is not None:  # MLflow compares runs by what was logged first, and losses of two targets tell nothing
            self._log_metrics(found, [(SCORE, math.nan, entry.milliseconds, BEFORE_TRAINING)])
        return found

    @property
    def _client(self) -> MlflowClient:
        if not hasattr(self, "_made_client"):
            self._made_client = connect(self._uri, self._folder)
        return self._made_client
