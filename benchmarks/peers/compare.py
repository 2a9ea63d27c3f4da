"""CPU seconds a trial of a plain Optuna + TRL sweep (`sweep.py`) and of ours, on the same model, data and problems.

    python benchmarks/peers/compare.py quickstart WORLD OUT [--trials 16] [--rounds 1] [--sides process ours ...]
    python benchmarks/peers/compare.py smollm2 FOLDER OUT --model SmolLM2 [--trials 8] [--steps 20] [--problems 64]

WORLD: a folder of `python -m qtarget.evaluation.tiny_world.world`; FOLDER: one of `studies/make_gym_task.py`. The sides
take turns, a round each, one thread each: `process` starts one for each trial, `resident` keeps model and data,
`ours` is `qtarget run` with the same two knobs drawn at random and nobody stopped, `defaults` the same with the pruner
that a study has. CPU seconds are those of all processes of a side, starts and imports included. A line of OUT a side
and round, then the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SWEEP = Path(__file__).with_name("sweep.py")
SIDES = ("process", "resident", "ours", "defaults")
SEARCHES: dict[str, dict[str, Any]] = {"ours": {"sampler": "random", "pruner": "none"}, "defaults": {}}
RATES = {"quickstart": [5e-4, 3e-3], "smollm2": [1e-5, 3e-4]}


def study(given: argparse.Namespace, folder: Path, side: str) -> dict[str, Any]:
    """Our study file: one residual, whose model is asked along the way, an exponent and a learning rate."""
    tiny = given.world == "quickstart"
    training = {
        "steps": given.steps, "effective_batch": given.batch, "micro_batch": given.batch,
        "checkpoint_every": given.steps, "precision": "fp32" if tiny else "bf16",
    }  # fmt: skip
    task = {"path": str(given.folder.absolute() / "problems.jsonl"), "kind": "exact" if tiny else "numeric"}
    return {
        "study": side,
        "folder": str(folder),
        "model": {"path": model(given)},
        **({"teacher": {"path": str(given.folder.absolute() / "teacher")}} if tiny else {}),
        "data": {"path": str(given.folder.absolute() / "demonstrations.jsonl"), "max_length": given.length},
        "training": training,
        "space": {
            "gamma": {"power": {"exponent": [0.0, 1.5]}},
            "residual": {"geometric": {"teacher": float(tiny), "reference": float(not tiny)}},
            "training": {"learning_rate": [*RATES[given.world], "log"]},
        },
        "baselines": [],
        "search": {"trials": given.trials, "rivals": 0.0, "repeats": 0, **SEARCHES[side]},
        "evaluation": {
            "tasks": [task], "problems": given.problems, "report_problems": 0, "max_new_tokens": given.new_tokens,
            "batch_size": given.answers,
        },
    }  # fmt: skip


def model(given: argparse.Namespace) -> str:
    return str(given.folder.absolute() / "base") if given.world == "quickstart" else str(Path(given.model).absolute())


def ours(given: argparse.Namespace, folder: Path, side: str) -> float:
    """The best score of our study."""
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(study(given, folder, side)), "utf-8")
    call([sys.executable, "-m", "qtarget", "run", str(file), "--json"])
    said = subprocess.run(
        [sys.executable, "-m", "qtarget", "status", str(file), "--json"], check=True, capture_output=True, text=True
    )
    scores = [each["score"] for each in json.loads(said.stdout)["trials"] if each["state"] == "complete"]
    return float(max(scores))


def theirs(given: argparse.Namespace, folder: Path, side: str) -> float:
    """The best score of the plain sweep."""
    tiny = given.world == "quickstart"
    frozen = str(given.folder / "teacher") if tiny else model(given)
    places = ["--model", model(given), "--frozen", frozen, "--data", str(given.folder / "demonstrations.jsonl")]
    numbers = {
        "--trials": given.trials, "--steps": given.steps, "--batch": given.batch, "--length": given.length,
        "--count": given.problems, "--answers": given.answers, "--new-tokens": given.new_tokens,
    }  # fmt: skip
    said = call(
        [sys.executable, str(SWEEP), str(folder), *places, "--problems", str(given.folder / "problems.jsonl")]
        + [text for name, value in numbers.items() for text in (name, str(value))]
        + ["--rates", *map(str, RATES[given.world])]
        + ([] if tiny else ["--bf16"])
        + (["--resident"] if side == "resident" else [])
    )
    return max(float(json.loads(line)["score"]) for line in said.splitlines() if line.startswith('{"number"'))


def call(command: Sequence[str]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def seconds() -> float:
    """CPU seconds of all processes that were waited for, and of those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(given: argparse.Namespace, round_: int, side: str) -> dict[str, Any]:
    folder = given.out.absolute() / f"{side}-{round_}"
    shutil.rmtree(folder, ignore_errors=True)
    before = seconds()
    best = (theirs if side in ("process", "resident") else ours)(given, folder, side)
    used = seconds() - before
    each = {"side": side, "round": round_, "trials": given.trials, "cpu_seconds": round(used, 1), "best": best}
    with (given.out / "sides.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(each) + "\n")
    return each


def ratios(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The least of each side's rounds, and the plain sweeps' beside ours."""
    least: dict[str, float] = {}
    for each in found:
        one = each["cpu_seconds"] / each["trials"]
        least[each["side"]] = min(one, least.get(each["side"], one))
    lines = [f"{side}: {value:.1f} CPU seconds a trial" for side, value in least.items()]
    pairs = [(their, our) for their in SIDES[:2] for our in SIDES[2:] if their in least and our in least]
    return lines + [f"{their} / {our}: {least[their] / least[our]:.2f}" for their, our in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=tuple(RATES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rounds", type=int, default=1)
    for name in ("trials", "steps", "batch", "length", "problems", "answers", "new-tokens"):
        parser.add_argument(f"--{name}", type=int)
    given = parser.parse_args()
    tiny = {"trials": 16, "steps": 100, "batch": 32, "length": 64, "problems": 256, "answers": 256, "new_tokens": 32}
    small = {"trials": 8, "steps": 20, "batch": 8, "length": 112, "problems": 64, "answers": 32, "new_tokens": 48}
    for name, usual in (tiny if given.world == "quickstart" else small).items():
        setattr(given, name, getattr(given, name) or usual)
    given.out.mkdir(parents=True, exist_ok=True)
    found = []
    for round_ in range(given.rounds):
        for side in given.sides:
            found.append(measure(given, round_, side))
            print(json.dumps(found[-1]), flush=True)
    print("\n".join(ratios(found)))


if __name__ == "__main__":
    main()
