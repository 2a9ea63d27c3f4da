"""Does a winner stay ahead of plain SFT in a longer run? Both trained in full with the same seeds, the report problems
as judge.

    python benchmarks/longer_run.py EXPORT --steps 300 --seeds 1 2 3 --out runs/longer

Runs `qtarget train` on winner.yaml and sft.yaml of an export and prints the paired difference with the interval that a
confirmation would give it (problems and seeds are both random). A second call reuses what is finished.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from qtarget.evaluation.statistics.evidence import Tables
from qtarget.evaluation.statistics.leads import lead
from qtarget.search.confirmation.race import problem_scores

SIDES = {"winner": "winner.yaml", "sft": "sft.yaml"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/longer"))
    given = parser.parse_args()
    tables = {}
    for side, file in SIDES.items():
        scores = []
        for seed in given.seeds:
            scores.append(trained(given.export / file, given.out / f"{side}-{seed}", given.steps, seed))
        order = sorted(scores[0])
        tables[side] = np.array([[found[problem] for found in scores] for problem in order])
    evidence, weights = Tables(list(tables.values())), np.array([[1.0, -1.0]])
    seeds = np.full((1, len(SIDES)), len(given.seeds))
    runs = evidence.runs(seeds)
    found = lead(runs, weights, evidence.problem(weights, seeds), evidence.cell(seeds), evidence.problems)
    effect, half = 100 * found.effect[0], 100 * found.half_width(0.025)[0]
    print(f"{given.steps} steps; plain SFT {runs.means[0, 1]:.3f}, winner {runs.means[0, 0]:.3f}; winner minus SFT "
          f"{effect:+.1f} points [{effect - half:+.1f}, {effect + half:+.1f}]")  # fmt: skip


def trained(winner: Path, out: Path, steps: int, seed: int) -> dict[str, float]:
    """Scores of the report problems after a full run."""
    started = time.perf_counter()
    if not (out / "result.json").exists():
        options = ["--out", str(out), "--steps", str(steps), "--seed", str(seed), "--tracking", "none", "--json"]
        command = [sys.executable, "-m", "qtarget", "train", str(winner), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = json.loads((out / "result.json").read_text("utf-8"))["report"]
    if result["split"] != "report":
        raise SystemExit("the study kept no report problems: there is nothing that no trial has seen")
    print(f"{out.name}: {result['score']:.3f} in {time.perf_counter() - started:.1f} s", flush=True)
    return problem_scores(out / "evaluations" / "report.jsonl")


if __name__ == "__main__":
    main()
