"""An export on a model hub: its files, and a README whose metadata the hub reads (base model, data, results)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ...spaces.errors import UserError
from ..study.files import write_atomic

TAGS = ["qtarget", "supervised-fine-tuning", "target-distribution"]
CARD, README = "MODEL_CARD.md", "README.md"
LOCAL = (".", "/", "~", "$")


def push(folder: Path, repository: str, *, private: bool = False, api: HfApi | None = None) -> dict[str, Any]:
    """Write README.md into an export's folder and upload all of it; address and commit.

    Raises UserError when the hub refuses: no login, no right, a name that is none.
    """
    write_atomic(folder / README, readme(folder, repository.rpartition("/")[2]))
    hub = api or HfApi()
    try:
        made = hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="A training target found by qtarget"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().replace("\n", " ")[:300]
        raise UserError(
            f"`--push-to-hub` must name a repository that may be written, but {repository} was refused ({reason}); "
            f"log in with `hf auth login`, or set HF_TOKEN; the export itself is complete in {folder}"
        ) from None
    return {"repository": made.repo_id, "url": str(made), "commit": commit.oid}


def readme(folder: Path, name: str) -> str:
    """The model card with the hub's metadata before it, the verdict as results of a model index."""
    winner = yaml.safe_load((folder / "winner.yaml").read_text("utf-8"))
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    paths = [winner["data"]["path"]] if isinstance(winner["data"]["path"], str) else winner["data"]["path"]
    sources = [path if isinstance(path, str) else path["path"] for path in paths]
    card = ModelCardData(
        model_name=name,
        base_model=_on_hub(winner["model"]["path"]),
        datasets=[source for source in sources if _on_hub(source)] or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[*TAGS, *([provenance["preset"]] if provenance.get("preset") else [])],
        eval_results=_results(winner, provenance) or None,
    )
    return f"---\n{card.to_yaml()}\n---\n\n{(folder / CARD).read_text('utf-8')}"


def _results(winner: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[EvalResult]:
    """The verdict in points over plain SFT where the design was confirmed, and its score in the search."""
    tasks = [
        task["path"] if isinstance(task["path"], str) else task["path"][0] for task in winner["evaluation"]["tasks"]
    ]
    task: dict[str, Any] = {"task_type": "text-generation", "dataset_name": ", ".join(tasks), "dataset_type": tasks[0]}
    found = []
    verdict = provenance.get("confirmation")
    if isinstance(verdict, Mapping) and "effect" in verdict:
        low, high = (100 * float(verdict[end]) for end in ("low", "high"))
        found.append(
            EvalResult(
                **task,
                metric_type="accuracy",
                metric_name=f"points over plain SFT on untouched problems [{low:+.1f}, {high:+.1f}], "
                f"{verdict['outcome']}, {verdict['seeds']} seeds",
                metric_value=round(100 * float(verdict["effect"]), 2),
            )
        )
    if provenance.get("score") is not None:
        found.append(
            EvalResult(
                **task,
                metric_type="accuracy",
                metric_name="accuracy in the search (the best of many, partly luck)",
                metric_value=round(float(provenance["score"]), 4),
            )
        )
    return found


def _on_hub(path: str) -> str | None:
    """A hub id; None for what lies on this machine."""
    local = path.startswith(LOCAL) or path.count("/") != 1 or Path(path).suffix in (".gguf", ".jsonl", ".json", ".csv")
    return None if local else path
