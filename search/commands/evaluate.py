"""`qtarget evaluate`: the score of a finished model on the tasks of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ..terminal.progress import ask_and_show


def evaluate_model(model: str, tasks: Path, out: Path | None, console: Console) -> dict[str, Any]:
    """Score a model folder, hub id or GGUF file; prints score, standard error and the count of every verdict.

    Raises UserError for a model or tasks that cannot be used.
    """
    request = {"model": model, "tasks": str(tasks), "out": str(out) if out else None}
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
            console.print(f"{name}: {task['score']:.3f}{error}{passed} on {task['num_problems']} problems")
    if result["first_error"]:
        console.print(f"first error: {result['first_error']}", soft_wrap=True)
    return result
