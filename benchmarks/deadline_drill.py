"""A real study with a deadline: it must end within seconds of it, and go on at the next call.

    python benchmarks/deadline_drill.py WORLD/seed-0/study.yaml OUT --seconds 120

runs the study with `--until` so many seconds ahead, then once more with the same again. Prints a JSON report: when each
call ended beside its deadline, what it confirmed, or that there was no time to; exit 1 when a call overran by more than
`--tolerance` seconds, left a trial running, or did not get further than the one before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from qtarget.search.store.history import load_history
from qtarget.search.study.config_file import load_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--tolerance", type=float, default=10.0)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--pruner")
    given = parser.parse_args()
    study = variant(given.study, given.out.absolute(), given.pruner)
    calls = [call(study, given.seconds) for _ in range(given.calls)]
    faults = [
        f"a call ended {late:.1f} s late" for each in calls if (late := each["seconds after it"]) > given.tolerance
    ]
    faults += [f"{each['states']['running']} trials left running" for each in calls if each["states"].get("running")]
    for before, after in itertools.pairwise(calls):
        if progress(after) <= progress(before) and not after["confirmation"]:
            faults.append("a call did not get further than the one before")
    print(json.dumps({"calls": calls, "faults": faults}, indent=2))
    sys.exit(bool(faults))


def variant(study: Path, out: Path, pruner: str | None) -> Path:
    """The same study in a folder of its own, perhaps with another pruner at its own rungs."""
    data = yaml.safe_load(study.read_text("utf-8"))
    if pruner is not None:
        data["search"] = {**data["search"], "pruner": pruner}
        data["search"].pop("rungs", None)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "deadline.yaml"
    folder = str(out / "deadline")
    path.write_text(
        yaml.safe_dump({**data, "base": str(study.parent.absolute()), "study": "deadline", "folder": folder})
    )
    return path


def call(study: Path, seconds: float) -> dict[str, Any]:
    """One `qtarget run --until`; what came of it."""
    until = datetime.now().astimezone() + timedelta(seconds=seconds)
    command = [sys.executable, "-m", "qtarget", "run", str(study), "--until", until.isoformat(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    late = (datetime.now().astimezone() - until).total_seconds()
    if done.returncode not in (0, 130):
        raise RuntimeError(f"the study failed with {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    verdict = found.get("confirmation") or {}
    return {
        "seconds after it": round(late, 1),
        "ended": found["ended"],
        "states": dict(Counter(record.state for record in load_history(load_study(study)))),
        "unconfirmed": found.get("unconfirmed"),
        "confirmation": {each["title"]: each["outcome"] for each in verdict.get("comparisons", [])},
    }


def progress(call: dict[str, Any]) -> tuple[int, int]:
    """Trials that got somewhere, and those that are whole."""
    reached = sum(count for state, count in call["states"].items() if state not in ("waiting", "running"))
    return reached, call["states"].get("complete", 0)


if __name__ == "__main__":
    main()
