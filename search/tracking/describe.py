"""What MLflow's pages say of a run in words: who made it with what, and its description."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ...spaces.target import TargetSpec

NOTE = "mlflow.note.content"
EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",
    NOTE: "Which training target teaches this model most from these demonstrations? A run is a study, and the runs "
    "nested in it are its trials: compare them by `final/score`, the share of the search problems answered right. "
    "Training losses of different targets are different quantities. A logged model is a trial's: its target, its "
    "learning rate, its score.",
}
"""Tags of an experiment: its description; and that its pages are those of trained models, not of prompts and agents."""


def origin() -> dict[str, str]:
    """MLflow's own tags for the program and the person behind a run."""
    tags = {"mlflow.source.name": "qtarget", "mlflow.source.type": "LOCAL"}
    try:
        return tags | {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return tags


def of_study(config: Mapping[str, Any]) -> str:
    """What a study asks, of its settings."""
    model, data = (config.get(name, {}).get("path") for name in ("model", "data"))
    paths = data if isinstance(data, list | tuple) else [data]
    named = ", ".join(str(each["path"] if isinstance(each, Mapping) else each) for each in paths if each)
    return (
        f"Which training target teaches {model} most from {named}? Each nested run is a trial: compare them by "
        "`final/score`, the share of the search problems answered right."
    )


def of_trial(spec: Mapping[str, Any]) -> str:
    """The target of a trial as a formula, with its learning rate; nothing for a spec that holds no target."""
    try:
        formula = TargetSpec.model_validate(spec["target"]).title()
    except (ValidationError, KeyError):
        return ""
    rate = spec.get("training", {}).get("learning_rate")
    return formula if rate is None else f"{formula}\n\nlearning rate {rate:.3g}"
