"""Which score of a trial on its way ranks designs as their scores at the end do?

    python benchmarks/rung_ranks.py WORLD OUT.jsonl [--designs 24] [--part 0/1]

WORLD is a folder of `qtarget quickstart` (study.yaml and what it names). Each design, the study's baselines and random
points of its space in turns, is trained once; at a ninth and a third of the steps half of the search problems are asked
of five sets of weights, at the end all of them:

- raw: the weights as they are, at the rate that they go on with;
- decay: after a quarter more steps at a rate that falls linearly to nothing, undone afterwards;
- average: the mean of the weights over the second half of the steps so far;
- cut: a training of its own whose whole schedule ends at the rung, which nothing can go on from.

A line of OUT a design; designs that are there already are left out. `--part 0/3` does every third. Then the table over
all OUT files given: `--table OUT.jsonl ...`. Spearman's ρ with the scores at the end, and how many of the best third at
the rung are in the best third at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.search.engine.inputs import Engine
from qtarget.search.study.config_file import find_study
from qtarget.search.terminal.rungs import agreement
from qtarget.spaces import TargetSpec
from qtarget.spaces.identity import derive_seed
from qtarget.spaces.search_space.choosers import RandomChooser
from qtarget.trainers.loop.look import Branch
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.loop.optimizer import learning_rate
from qtarget.trainers.loop.sft import _Run
from qtarget.trainers.settings import TrainingSettings

DECAY, TAIL = 0.25, 0.5
"""Length of the branch, and of the average, in a rung's steps."""


class World:
    """An engine, and trainings that are looked at from all sides."""

    def __init__(self, folder: Path) -> None:
        self.config = find_study(folder / "study.yaml")
        self.engine = Engine(self.config)
        self.steps = self.config.training.steps
        self.rungs = (self.steps // 9, self.steps // 3)
        self.seed = derive_seed("study", self.config.search.seed)
        self.problems = self.engine.problems["search"]
        self.engine.scoring.prepare(self.engine.resident.fresh(None, seed=self.seed), lambda done, total: False)

    def score(self, model: Any, whole: bool = False) -> float:
        problems = self.problems if whole else self.problems[: len(self.problems) // 2]
        found = evaluate(
            model,
            self.engine.tokenizer,
            problems,
            self.config.evaluation,
            seed=derive_seed("evaluation", self.seed),
            block=len(problems),
            backend=self.engine.scoring.backend(model),
        )
        return found.score

    def run(self, target: TargetSpec, settings: TrainingSettings) -> _Run:
        resident, sources = self.engine.resident, self.engine.sources(target)
        model = resident.fresh(None, seed=self.seed)
        objective = Objective(
            model, sources["reference"], sources["teacher"], dense=False, real_vocab=resident.real_vocab
        )
        return _Run(objective, self.engine.data, target, settings, self.seed, None, resident.pad_token_id)

    def measure(self, target: TargetSpec, settings: TrainingSettings) -> dict[str, float]:
        found, run, tails = {}, self.run(target, settings), {rung: Tail(rung) for rung in self.rungs}
        while run.step < self.steps:
            run._next_step()
            for tail in tails.values():
                tail.add(run)
            if run.step in tails:
                found |= {f"{run.step}/{name}": score for name, score in self.looks(run, tails[run.step])}
        found["end"] = self.score(run.objective.model, whole=True)
        for rung in self.rungs:
            cut = self.run(target, settings.model_copy(update={"steps": rung}))
            while cut.step < rung:
                cut._next_step()
            found[f"{rung}/cut"] = self.score(cut.objective.model)
        return found

    def looks(self, run: _Run, tail: Tail) -> Iterator[tuple[str, float]]:
        model, rung = run.objective.model, run.step
        weights = {name: tensor.clone() for name, tensor in run.optimizer.weights().items()}
        moments, tokens = {name: tensor.clone() for name, tensor in run.optimizer.moments().items()}, run.tokens
        yield "raw", self.score(model)
        count = round(DECAY * rung)
        run.branch = Branch(rung, count, learning_rate(run.settings, rung))
        for _ in range(count):
            run._next_step()
        run.branch = None
        yield "decay", self.score(model)
        run.optimizer.set_weights(tail.mean())
        yield "average", self.score(model)
        run.optimizer.set_weights(weights)
        run.optimizer.set_moments(moments)
        run.step, run.tokens = rung, tokens


class Tail:
    """The mean of the weights over the last steps before a rung."""

    def __init__(self, rung: int) -> None:
        self._first, self._rung, self._count = rung - round(TAIL * rung), rung, 0
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, run: _Run) -> None:
        if self._first < run.step <= self._rung:
            self._count += 1
            for name, tensor in run.optimizer.weights().items():
                self._sums[name] = self._sums.get(name, 0.0) + tensor.double()

    def mean(self) -> dict[str, torch.Tensor]:
        return {name: (tensor / self._count).float() for name, tensor in self._sums.items()}


def designs(world: World, count: int) -> list[tuple[str, TargetSpec, dict[str, Any]]]:
    """Random points and baselines in turns, as long as there are baselines."""
    config = world.config
    baselines = iter(config.baseline_settings())
    found: list[tuple[str, TargetSpec, dict[str, Any]]] = []
    drawings = itertools.count()
    for index in range(count):
        if index % 2 == 0 and (baseline := next(baselines, None)) is not None:
            training = {"learning_rate": config.training.learning_rate} | baseline.training
            found.append((f"{baseline.preset} {baseline.knobs} {training}", baseline.target(), training))
            continue
        drawn = config.space.suggest(RandomChooser(random.Random(derive_seed("rung design", next(drawings)))))
        found.append((f"{drawn.target.title()} {dict(drawn.training)}", drawn.target, dict(drawn.training)))
    return found


def measure(arguments: argparse.Namespace) -> None:
    world, (part, parts) = World(arguments.world), map(int, arguments.part.split("/"))
    done = {json.loads(line)["design"] for line in read(arguments.out)}
    for name, target, training in designs(world, arguments.designs)[part::parts]:
        if name in done or target.previous is not None:
            continue
        begun = time.process_time()
        found = world.measure(target, world.config.training.with_knobs(training))
        line = {"design": name, "cpu_seconds": round(time.process_time() - begun, 1), **found}
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def read(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def table(files: list[Path]) -> None:
    rows = [json.loads(line) for file in files for line in read(file)]
    print(f"{len(rows)} designs, {sum(row['cpu_seconds'] for row in rows) / len(rows):.1f} CPU seconds each")
    third = len(rows) // 3
    best = set(sorted(range(len(rows)), key=lambda index: -rows[index]["end"])[:third])
    for name in [key for key in rows[0] if "/" in key]:
        rho = agreement([(row[name], row["end"]) for row in rows])
        top = sorted(range(len(rows)), key=lambda index, name=name: (-rows[index][name], index))[:third]
        print(f"{name:>12}  rho {rho if rho is None else round(rho, 2)}  kept {len(best & set(top))}/{third}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--designs", type=int, default=24)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--table", type=Path, nargs="+")
    given = parser.parse_args()
    table(given.table) if given.table else measure(given)
