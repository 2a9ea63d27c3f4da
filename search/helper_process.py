"""Short work that needs torch, in a process of its own: shows progress, returns its last message, raises its faults."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ..spaces.errors import UserError
from .progress import bars


def run_module(module: str, arguments: Sequence[str], console: Console) -> dict[str, Any]:
    """Run `python -m module arguments`, which speaks JSON lines, to its last message.

    A message with `phase`, `done` and `total` moves a progress bar. Raises UserError for what the user can mend,
    RuntimeError with the process's last words for anything else.
    """
    pipe = subprocess.PIPE
    last: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        bars(console) as progress,
        # standard input stays open until the end: its end would tell an engine to leave
        subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=pipe, stdout=pipe, stderr=errors, text=True)
        as process,
    ):  # fmt: skip
        assert process.stdout is not None
        tasks: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if (phase := last.get("phase")) is not None:
                if phase not in tasks:
                    tasks[phase] = progress.add_task(phase, total=last["total"], note="")
                progress.update(tasks[phase], completed=last["done"], total=last["total"])
        process.wait()
        errors.seek(0)
        raise_fault(module, process.returncode, last, errors.read()[-3000:])
    return last


def raise_fault(module: str, code: int, last: dict[str, Any], words: str) -> None:
    """Raise what a process failed with: UserError for what the user can mend, RuntimeError for the rest."""
    failure = last.get("failure")
    if failure is not None and failure["kind"] == "user":
        raise UserError(failure["message"], field=failure.get("field"))
    if failure is not None:
        raise RuntimeError(f"{module} failed: {failure['message']}\n{failure.get('traceback', '')}")
    if code:
        raise RuntimeError(f"{module} ended with status {code}; it said:\n{words}")
