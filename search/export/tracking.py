"""What comes after a search, in MLflow: a verdict in the study's run, an export's files, a registered model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store.study import stored_identity
from ..study.config import StudyConfig
from ..terminal.verdict import confirmation_sentence, decisive
from ..tracking.address import run_key, study_place, tracking_uri
from ..tracking.connection import artifact_root, connect
from ..tracking.describe import EXPERIMENT
from .choice import Winner

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
FOLDER = "export"
TAG_LENGTH = 5000
"""MLflow's limit for a tag's text."""
CONFIRMED, UNCONFIRMED = "confirmed", "unconfirmed"


def track_export(config: StudyConfig, winner: Winner, directory: Path) -> dict[str, Any]:
    """Log the files, register a version, point the alias at it. A store that is down is reported and never fails."""
    if config.tracking.uri == "none":
        return {"logged": False, "why": "tracking is switched off"}
    try:
        client = connect(tracking_uri(config), config.study_folder)
        run = study_run(client, config)
        client.log_artifacts(run, str(directory), FOLDER)
        return {"logged": True, "run": run, **_register(client, config.study, run, winner)}
    except Exception as error:
        log.warning("MLflow did not take the export (%s: %s); its files are complete", type(error).__name__, error)
        return {"logged": False, "why": f"{type(error).__name__}: {error}"}


def track_verdict(config: StudyConfig, verdict: Mapping[str, Any]) -> bool:
    """Log a confirmation's answers in the study's run; whether the store took them. One that is down never fails."""
    if config.tracking.uri == "none":
        return False
    try:
        client = connect(tracking_uri(config), config.study_folder)
        run = study_run(client, config)
        client.set_tag(run, "qtarget.verdict", confirmation_sentence(verdict)[:TAG_LENGTH])
        for name, value in verdict_metrics(verdict).items():
            client.log_metric(run, name, value)
        client.log_dict(run, dict(verdict), "confirmation.json")
    except Exception as error:
        log.warning(
            "MLflow did not take the verdict (%s: %s); it is in the study's folder", type(error).__name__, error
        )
        return False
    return True


def verdict_metrics(verdict: Mapping[str, Any]) -> dict[str, float]:
    """The leads of a verdict, as score differences."""
    rival, lasting = verdict["against_published"], verdict["lasting"]
    found = {"confirmed_lead_over_sft": float(decisive(verdict)["effect"])}
    if rival is not None:
        found["confirmed_lead_over_published"] = float(rival["effect"])
    return found | {f"lead_change_longer_{each['rival'].split()[0]}": float(each["change"]) for each in lasting}


def study_run(client: MlflowClient, config: StudyConfig) -> str:
    """Id of the study's run, or of a new one where the store has none."""
    key = run_key(config.study, study_place(config), stored_identity(config))
    experiment = config.tracking.experiment or f"{Path(config.model.path).name} on {config.data.title}"
    found = client.get_experiment_by_name(experiment)
    number = (
        found.experiment_id
        if found
        else client.create_experiment(experiment, artifact_root(tracking_uri(config), config.study_folder), EXPERIMENT)
    )
    query = f"tags.`qtarget.study` = '{key}' and tags.`qtarget.trial` = 'study'"
    runs = client.search_runs([number], query, max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    run = client.create_run(number, tags={"qtarget.study": key, "qtarget.trial": "study"}, run_name=config.study)
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def _register(client: MlflowClient, name: str, run: str, winner: Winner) -> dict[str, Any]:
    """A version of the registered model, where the store has a registry (a plain file store has none)."""
    from mlflow.exceptions import MlflowException

    alias = CONFIRMED if winner.confirmed else UNCONFIRMED
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description="Training targets found by qtarget")
        source = f"{client.get_run(run).info.artifact_uri}/{FOLDER}"
        version = client.create_model_version(name, source, run, description=winner.title)
        client.set_registered_model_alias(name, alias, version.version)
    except MlflowException as error:
        return {"registered": None, "why": str(error)}
    return {"registered": name, "version": version.version, "alias": alias}
