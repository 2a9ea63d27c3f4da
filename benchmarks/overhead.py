"""What of a study's time goes into neither optimiser steps nor answers, and what its supervisor takes of a core.

    python benchmarks/overhead.py STUDY_FOLDER [STUDY_FOLDER ...] [--json FILE]

From the records of studies that ran: the wall time of each trial that an engine took from begin to end in one attempt,
less its steps, its answers (rungs included) and what it was asked about retention; what is left are models put back,
the check of the backend, checkpoints, results and messages. The supervisor's share is its CPU seconds, imports aside,
deliveries to MLflow included, beside the CPU seconds of its engines, starts included: what it takes of a core where an
engine has a core to itself.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtarget.search.loop.log import FILE
from qtarget.search.store.history import TrialRecord, load_history
from qtarget.search.study.trial import trial_folder

USED = re.compile(r"used ([0-9.]+) s of CPU here and ([0-9.]+) s in engines, in ([0-9.]+) s$", re.MULTILINE)
PARTS = ("training_seconds", "evaluation_seconds", "rung_seconds")


def trials(folder: Path) -> Iterator[dict[str, float]]:
    """Seconds of each trial in one attempt: whole, in steps and answers, and neither."""
    for record in load_history(folder):
        result = trial_folder(folder, record.number).result
        if result is None or not _whole(record) or record.seconds is None or "rung_seconds" not in result:
            continue
        known = sum(float(result[part]) for part in PARTS) + float((result["retention"] or {}).get("seconds", 0.0))
        yield {"trial": record.number, "seconds": record.seconds, "known": known, "other": record.seconds - known}


def _whole(record: TrialRecord) -> bool:
    return record.attempts == 1 and record.same_as is None and record.state in ("complete", "pruned")


def supervisor(folder: Path) -> dict[str, float] | None:
    """CPU seconds of all calls of a study together; None for one whose log does not say them."""
    found = [[float(each) for each in line] for line in USED.findall((folder / FILE).read_text("utf-8"))]
    if not found:
        return None
    here, engines, seconds = (sum(column) for column in zip(*found, strict=True))
    return {"calls": len(found), "supervisor": here, "engines": engines, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for folder in arguments.folders:
        each, used = list(trials(folder)), supervisor(folder)
        found[str(folder)] = {"trials": each, "supervisor": used}
        if each:
            share = sum(one["other"] for one in each) / sum(one["seconds"] for one in each)
            print(f"{folder}: {share:.1%} of the time of {len(each)} trials outside steps and answers (goal: 5 %)")
        if used is not None:
            share = used["supervisor"] / used["engines"] if used["engines"] else float("nan")
            print(f"{folder}: the supervisor took {share:.1%} of an engine's core (goal: 2 %)")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
