"""How many trials does a plain sweep need to come where a study is? From the lines that `replay.py` wrote.

    python benchmarks/replay_equal.py TABLE REPLAYS.jsonl [--arms tpe/asha] [--sweep "plain random/none"]

`--study` is the file by which another table's designs were trained.

A sweep of the same space that knows no published objectives and trains every trial to its end. For each budget of an
arm, in whole trials' worth of steps: the trials after which the sweep's median regret is no larger than the arm's, and
how often the arm's steps that is, with 95 % from resampled replays. What a step costs on either side is not in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from replay import BUDGETS, RESAMPLES, regrets, replays, speaking
from replay_table import Table

from qtarget.evaluation.tiny_world.study import study_text

Array = NDArray[np.float64]


def path(table: Table, each: Mapping[str, Any]) -> Array:
    """(trials,) regret of a replay of whole trials after each of them, in points."""
    scores = [table.score(row) for _, row in each["ends"]]
    return 100 * (table.score(table.best) - np.maximum.accumulate(scores))


def needed(paths: Array, regret: float) -> float:
    """Trials until the median of `paths` (replays, trials) is no larger than `regret`; infinite if it never is."""
    reached = np.flatnonzero(np.median(paths, axis=0) <= regret + 1e-9)
    return float(reached[0] + 1) if len(reached) else np.inf


def line(paths: Array, lost: Array, budget: int, generator: np.random.Generator) -> str:
    drawn = [
        needed(paths[generator.integers(len(paths), size=len(paths))], np.median(generator.choice(lost, len(lost))))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5], method="nearest") / budget
    found = needed(paths, float(np.median(lost)))
    return f"{np.median(lost):6.1f} {found:8.0f} {found / budget:6.1f} [{low:.1f}, {high:.1f}]"


def show(table: Table, found: Sequence[Mapping[str, Any]], arms: Sequence[str], sweep: str) -> None:
    generator, per_trial = np.random.default_rng(0), table.content["training"]["steps"]
    plain = [path(table, each) for each in found if each["arm"] == sweep]
    if not plain:
        raise SystemExit(f"no replay of {sweep!r} is there; make some: replay.py TABLE REPLAYS --arms {sweep!r}")
    paths = np.array([each[: min(map(len, plain))] for each in plain])
    print(f"{sweep}: {len(paths)} replays of {paths.shape[1]} trials\n{'arm':>20} worth regret   trials  ratio [95 %]")
    for arm in arms:
        for budget in BUDGETS:
            if not (told := speaking(found, arm, budget)):
                continue
            lost = np.array([regrets(table, each["ends"], budget * per_trial)[0] for each in told])
            print(f"{arm:>20} {budget:5} {line(paths, lost, budget, generator)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landscape", type=Path)
    parser.add_argument("replays", type=Path)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--arms", nargs="+", default=["tpe/asha"])
    parser.add_argument("--sweep", default="plain tpe/none")
    given = parser.parse_args()
    table = Table(given.landscape, study_text(0) if given.study is None else given.study.read_text("utf-8"))
    show(table, replays(given.replays, table), given.arms, given.sweep)


if __name__ == "__main__":
    main()
