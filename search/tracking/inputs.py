"""What a trial learnt from and was scored on, as MLflow's datasets: found, compared and filtered by in its pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..study.secrets import redact
from .names import fitting_text

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

NAME_LIMIT, DIGEST_LIMIT, SOURCE_LIMIT = 500, 36, 60_000
"""Characters that MLflow takes."""


def inputs_of(spec: Mapping[str, Any]) -> list[DatasetInput]:
    """Demonstrations and problems of a trial's spec, each with the content that was found; none it does not name."""
    prints = spec.get("fingerprints", {})
    evaluation = spec.get("evaluation", {})
    problems = [path for task in evaluation.get("tasks", ()) for path in _paths(task["path"])]
    parts = {
        "training": (_paths(spec.get("data", {}).get("path")), prints.get("data")),
        "evaluation": (problems, prints.get("evaluation")),
    }
    return [_input(context, paths, str(digest)) for context, (paths, digest) in parts.items() if paths and digest]


def _paths(given: Any) -> list[str]:
    """The paths of a setting that is one path, or a list of paths or sources."""
    each = given if isinstance(given, list | tuple) else [given] if given else []
    return [str(one["path"] if isinstance(one, Mapping) else one) for one in each]


def _input(context: str, paths: list[str], digest: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    paths = [redact(path) for path in paths]
    name = fitting_text(", ".join(path.rstrip("/").rpartition("/")[2] or path for path in paths), NAME_LIMIT)
    source = fitting_text(json.dumps({"paths": paths}), SOURCE_LIMIT)
    dataset = Dataset(name=name, digest=digest[:DIGEST_LIMIT], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
