"""`qtarget evaluate`: the score of a finished model on the tasks of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ..store.study import Searched, searched
from ..study.config_file import FOLDER_FILE, find_study, read_yaml
from ..terminal.progress import ask_and_show


def evaluate_model(model: str, tasks: Path, out: Path | None, console: Console) -> dict[str, Any]:
    """Score a model folder, hub id or GGUF file; prints score, standard error and the count of every verdict.

    `tasks`: a file with an `evaluation`, or a study, whose problems are then those that its search has seen.
    Raises UserError for a model or tasks that cannot be used, and for a study whose problems have changed since.
    """
    request: dict[str, Any] = {"model": model, "tasks": str(tasks), "out": str(out) if out else None, "study": None}
    if (search := _searched(tasks)) is not None:
        request["study"] = search.config.model_dump(mode="json")
        request["fingerprints"] = dict(search.fingerprints)
        model_path = Path(model).absolute()  # the study's relative paths start elsewhere
        request["model"] = str(model_path) if model_path.exists() else model
    result = ask_and_show("evaluate", request, console)
    verdicts = ", ".join(f"{count} {name}" for name, count in result["verdicts"].items() if count)
    console.print(
        f"{result['score']:.3f} ± {result['standard_error']:.3f} on {result['num_problems']} problems, "
        f"{result['samples']} sample(s) each: {verdicts}; {result['seconds']:.1f} s",
        soft_wrap=True,
    )
    if len(result["tasks"]) > 1 or result["samples"] > 1:
        for name, task in result["tasks"].items():
            error = "" if task["standard_error"] is None else f" ± {task['standard_error']:.3f}"
            passed = f", pass@{result['samples']} {task['pass_at_k']:.3f}" if result["samples"] > 1 else ""
            console.print(
                f"{name}: {task['score']:.3f}{error}{passed} on {task['num_problems']} problems", markup=False
            )
    if result["first_error"]:
        console.print(f"first error: {result['first_error']}", soft_wrap=True, markup=False)
    return result


def _searched(tasks: Path) -> Searched | None:
    """The study that `tasks` describes, if it was ever run. Raises UserError when its file has changed since."""
    if not tasks.is_dir() and not _describes_a_study(read_yaml(tasks.absolute())):
        return None
    config = find_study(tasks)
    if not (config.study_folder / FOLDER_FILE).is_file():
        return None
    found = searched(config)
    found.refuse_changes("an evaluation")
    return found


def _describes_a_study(read: Mapping[str, Any]) -> bool:
    return {"study", "model", "data", "evaluation"} <= read.keys() and "matrix" not in read
