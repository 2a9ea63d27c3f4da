"""A real campaign with a deadline: it must end within seconds of it, share the time fairly, and go on at the next call.

    python benchmarks/campaign_deadline_drill.py CAMPAIGN.yaml OUT --seconds 240 --calls 2

runs the campaign in OUT with `--until` so many seconds ahead, then again. Prints a JSON report: for each call when it
ended beside its deadline, trials and engine seconds of every pair, what was confirmed, and what the call said did not
fit. Exit 1 when a call overran by more than `--tolerance` seconds, left a trial running, gave a pair more trials than
another by more than a slice, said nothing about what is left, or did not get further than the one before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from qtarget.search.store.history import load_history
from qtarget.search.study.campaign_config import load_campaign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tolerance", type=float, default=10.0)
    parser.add_argument("--calls", type=int, default=2)
    given = parser.parse_args()
    campaign = variant(given.campaign, given.out.absolute())
    calls = [call(campaign, given.seconds, number) for number in range(given.calls)]
    slice_ = load_campaign([campaign]).budget.slice
    faults = [fault for each in calls for fault in faults_of(each, slice_, given.tolerance)]
    for before, after in itertools.pairwise(calls):
        if progress(after) <= progress(before):
            faults.append("a call did not get further than the one before")
    print(json.dumps({"calls": calls, "faults": faults}, indent=2))
    sys.exit(bool(faults))


def variant(campaign: Path, out: Path) -> Path:
    """The same campaign with its studies in a folder of their own."""
    data = yaml.safe_load(campaign.read_text("utf-8"))
    inputs = (campaign.parent / data.get("base", ".")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for each in inputs.iterdir():
        if each.name != "runs" and not (out / each.name).exists():
            (out / each.name).symlink_to(each)
    path = out / "campaign.yaml"
    path.write_text(yaml.safe_dump({**data, "base": "."}, sort_keys=False), "utf-8")
    return path


def call(campaign: Path, seconds: float, number: int) -> dict[str, Any]:
    """One `qtarget run --until`, its words kept in call-N.log; what came of it."""
    until = datetime.now().astimezone() + timedelta(seconds=seconds)
    command = [sys.executable, "-m", "qtarget", "run", str(campaign), "--until", until.isoformat(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    campaign.with_name(f"call-{number}.log").write_text(done.stderr, "utf-8")
    late = (datetime.now().astimezone() - until).total_seconds()
    if done.returncode not in (0, 130):
        raise RuntimeError(f"the campaign failed with {done.returncode}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return {
        "seconds after its deadline": round(late, 1),
        "state": found["state"],
        "pairs": [pair(each) for each in found["studies"]],
        "said to be left": found["left"],
        "running": running(campaign),
    }


def pair(standing: dict[str, Any]) -> dict[str, Any]:
    verdict, best = standing["verdict"], standing["best"]
    return {
        "study": standing["study"],
        "finished": standing["finished"],
        "share": standing["share"],
        "search seconds": round(standing["seconds"], 1),
        "best": None if best is None else best["score"],
        "confirmed": None if verdict is None else f"{verdict['winner']}: {verdict['outcome']}",
    }


def running(campaign: Path) -> int:
    """Trials that the storages still call running."""
    studies = [study for study in load_campaign([campaign]).studies if study.study_folder.is_dir()]
    return Counter(record.state for study in studies for record in load_history(study))["running"]


def faults_of(call: dict[str, Any], slice_: int, tolerance: float) -> Iterator[str]:
    if (late := call["seconds after its deadline"]) > tolerance:
        yield f"a call ended {late} s late"
    if call["running"]:
        yield f"{call['running']} trials left running"
    behind = [each["finished"] for each in call["pairs"] if each["finished"] < each["share"]]
    most = max(each["finished"] for each in call["pairs"])
    if behind and most - min(behind) > slice_:
        yield f"trials are not shared fairly: {[each['finished'] for each in call['pairs']]}"
    if call["state"] == "stopped" and not call["said to be left"]:
        yield "a call stopped without a word on what is left"


def progress(call: dict[str, Any]) -> tuple[int, int]:
    """Finished trials, and confirmed pairs."""
    return sum(each["finished"] for each in call["pairs"]), sum(bool(each["confirmed"]) for each in call["pairs"])


if __name__ == "__main__":
    main()
