"""The model of each finished trial among MLflow's logged models: named, compared and scored on a data set there.

Weights are no part of it: a trial keeps none, so the model is external to MLflow, as one that is served elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .connection import is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KIND = "fine-tune"
EXTERNAL = "mlflow.model.isExternal"
UNKNOWN = frozenset({"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"})
"""What servers from before MLflow 3 say, which know no logged models."""
PARAMS = ("target.", "training.learning_rate")
"""Beginnings of the parameters that tell trials of a study apart."""
TAGS = ("qtarget.", "mlflow.user", "mlflow.source.", "mlflow.note.")
"""Beginnings of a run's tags that are its model's too."""
WRITTEN = str.maketrans({".": "\u2024", "/": "\u2044", ":": " ", "%": " ", '"': " ", "'": " "})
"""Characters that MLflow takes in no model's name: a leader's dot and a fraction's stroke look like the first two."""


def log_model(client: MlflowClient, run: Run, scores: Mapping[str, float], milliseconds: int) -> bool:
    """Make a run's model, once, and log its scores on the run's problems; False where the store knows no models."""
    from mlflow.exceptions import MlflowException

    try:
        _log_scores(client, run, _model_of(client, run), scores, milliseconds)
    except MlflowException as error:
        if error.error_code in UNKNOWN or is_refusal(error):
            return False
        raise
    return True


def _model_of(client: MlflowClient, run: Run) -> str:
    """Id of the run's model, of one that was made and not yet told of, or of a new one."""
    from mlflow.entities import LoggedModelOutput

    made = run.outputs.model_outputs if run.outputs else []
    if made:
        return str(made[0].model_id)
    query = f"source_run_id = '{run.info.run_id}'"
    left = client.search_logged_models([run.info.experiment_id], query, max_results=1)
    model = left[0] if left else client.create_logged_model(
        run.info.experiment_id,
        name=str(run.info.run_name).translate(WRITTEN),
        source_run_id=run.info.run_id,
        tags={EXTERNAL: "true", **{name: text for name, text in run.data.tags.items() if name.startswith(TAGS)}},
        params={name: text for name, text in run.data.params.items() if name.startswith(PARAMS)},
        model_type=KIND,
    )  # fmt: skip
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)


def _log_scores(client: MlflowClient, run: Run, model: str, scores: Mapping[str, float], milliseconds: int) -> None:
    from mlflow.entities import Metric

    given = run.inputs.dataset_inputs if run.inputs else []
    problems = [each.dataset for each in given if any(tag.value == "evaluation" for tag in each.tags)]
    on = {"dataset_name": problems[0].name, "dataset_digest": problems[0].digest} if problems else {}
    metrics = [
        Metric(name, value, milliseconds, 0, model_id=model, run_id=run.info.run_id, **on)
        for name, value in scores.items()
    ]
    client.log_batch(run.info.run_id, metrics=metrics)
