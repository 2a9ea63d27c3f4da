"""Does the verdict say what is so? Three tiny worlds through the product itself, each with another answer to expect.

    OMP_NUM_THREADS=1 python benchmarks/verdict_worlds.py runs/verdict-worlds [--worlds sft shrinks] [--seed 0]

- `published`: a fifth of the digits are wrong and the teacher is good, and the space that is searched does without it:
  a published distillation is the best.
- `sft`: nothing is wrong and the file's learning rate is far too low, so that plain SFT at a good one is the best.
- `shrinks`: the world of the quickstart, where the teacher helps most early; twice the steps let plain SFT catch up.

Each is a study file and one `qtarget run`: a search of few trials with tuned rivals, and a confirmation with few seeds.
A call that is interrupted goes on at the next one; what is finished is only printed. Nothing here is checked: the
verdicts are printed as they are, with the trainings they took.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from what_to_expect import WORLDS as KNOWN_WORLDS

from qtarget.evaluation.tiny_world.world import WorldSettings, build
from qtarget.search.loop.confirm import stored_verdict
from qtarget.search.study.config_file import find_study
from qtarget.search.terminal.verdict import show_verdict

RATES = [3e-4, 6e-3, "log"]
SPACE = {
    "gamma": {"power": {"exponent": [0.0, 1.5], "ceiling": [0.0, 1.0]}},
    "residual": {"geometric": {"teacher": [0.0, 1.0], "reference": 0.0}},
}
WORLDS: dict[str, dict[str, Any]] = {
    "published": {
        "world": KNOWN_WORLDS["strong teacher"],
        "steps": 60,
        "rate": 1e-3,
        "searched": RATES,
        "residual": {"geometric": {"teacher": 0.0, "reference": 0.0, "temperature": [0.5, 1.5, "log"]}},
    },
    "sft": {"world": KNOWN_WORLDS["clean"], "steps": 60, "rate": 3e-4, "searched": RATES},
    "shrinks": {"world": {}, "steps": 100, "rate": 2e-3, "searched": 2e-3, "batch": 32},
}
"""Settings of the world, steps of a training, the file's learning rate and which ones are searched; where they are not
those of all: the residuals that are searched, and the sequences of a step."""


def study(name: str, seed: int, trials: int, seeds: int) -> dict[str, Any]:
    """The study file of a world."""
    world = WORLDS[name]
    baselines = ["sft", "dft", "kd", "hybrid_kd", "target_sft"]
    scored = {"tasks": [{"path": "problems.jsonl", "kind": "exact"}], "problems": 128, "report_problems": 256}
    return {
        "study": name,
        "model": {"path": "base"},
        "teacher": {"path": "teacher"},
        "data": {"path": "demonstrations.jsonl", "max_length": 64},
        "training": {
            "steps": world["steps"], "effective_batch": world.get("batch", 24), "micro_batch": world.get("batch", 24),
            "learning_rate": world["rate"], "checkpoint_every": world["steps"],
        },
        "space": SPACE
        | {"residual": world.get("residual", SPACE["residual"]), "training": {"learning_rate": world["searched"]}},
        "baselines": baselines,
        "search": {"trials": trials, "seed": seed, "startup_trials": 8, "rivals": 0.5, "repeats": 1},
        "evaluation": scored | {"max_new_tokens": 32, "batch_size": 256},
        "tracking": {"uri": "none"},
        "confirmation": {"seeds": seeds, "designs": 1, "longer": 2.0, "longer_seeds": seeds},
    }  # fmt: skip


def run(folder: Path, name: str, given: argparse.Namespace) -> str:
    """The verdict's sentences, after what is missing has been run."""
    build(folder, given.seed, settings=WorldSettings(**WORLDS[name]["world"]))
    path = folder / "verdict-study.yaml"
    path.write_text(yaml.safe_dump(study(name, given.seed, given.trials, given.most_seeds), sort_keys=False), "utf-8")
    with (folder / "run.log").open("a", encoding="utf-8") as log:
        done = subprocess.run([sys.executable, "-m", "qtarget", "run", str(path)], stdout=log, stderr=log, check=False)
    if done.returncode:
        return f"ended with {done.returncode}; run.log in {folder} says why"
    verdict = stored_verdict(find_study(path))
    return "no verdict; run.log says why" if verdict is None else described(verdict)


def described(verdict: dict[str, Any]) -> str:
    """The table and the answers."""
    console = Console(width=140, record=True)
    with console.capture() as shown:
        show_verdict(verdict, console)
    return shown.get()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=13, help="slots of each search")
    parser.add_argument("--most-seeds", type=int, default=6, help="of a candidate in the confirmation")
    given = parser.parse_args()
    for name in given.worlds:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = run(given.out.absolute() / name, name, given)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{name}: {seconds:.0f} CPU seconds of the study\n{said}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
