"""Trains designs of the quickstart's world once each: a table on which searches can be replayed (`replay.py`).

    OMP_NUM_THREADS=1 python benchmarks/landscape.py runs/landscape [--study FILE] [--designs 300] [--pack TABLE.gz]

The folder holds the world (built when it is not there) and `landscape.jsonl`, a line a design; a second call trains
what is missing. `--pack` writes the lines so far to a compressed file, also while another process trains. World, steps,
batches, data order, problems, rungs and scoring are those of a study of seed 0: what its trials would have seen; with
`--study` those of another study, and its space.

Designs, in this order: the study's published baselines; points of the core space, drawn at random; from the 130th
on every second one is a near one, one of the best tenth so far with each knob moved by a normal draw of a tenth of its
range. So the table is denser where searches end up; a replay answers a drawn point by the nearest designs, so that a
random search finds no more of these for it.

Of each design: its score on every search problem at the end, on the first half of them on its way (`raw`: the weights
as they are; `decayed`: after a quarter more steps at a falling rate, which are undone), and on as many other problems
at the end, which no search has seen. CPU seconds of the training, and of all its scores.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from what_to_expect import whole_rows

from qtarget.evaluation.problems.load import Problem
from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.settings import EvaluationSettings
from qtarget.evaluation.tiny_world.world import build
from qtarget.search.engine.inputs import Engine
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study, placed
from qtarget.spaces import Point
from qtarget.spaces.identity import derive_seed
from qtarget.spaces.ranges import Range
from qtarget.spaces.search_space.knobs import Value
from qtarget.trainers.loop.look import Look
from qtarget.trainers.loop.sft import DivergedError, StepReport, train

RUNGS = {"raw": (1 / 3, 1 / 2), "decayed": (1 / 9, 2 / 9, 1 / 3)}
"""Where weights are scored on their way, as shares of the steps."""
DECAY = 0.25
"""How long decayed weights are trained on before they are scored, in a rung's steps."""
DENSER, NEAR, BEST = 130, 0.1, 10
"""The design from which on every second one is near one of the best; how near, in ranges; of so many one is best."""
OUT = "landscape.jsonl"


@dataclass(frozen=True)
class Near:
    """Draws each knob around the value that a point has."""

    parameters: Mapping[str, Value]
    generator: random.Random

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        here = Range(low=low, high=high, log=log)
        share = share_of(float(self.parameters[name]), here)
        return here.at(min(1.0, max(0.0, self.generator.gauss(share, NEAR))))

    def integer(self, name: str, low: int, high: int) -> int:
        return round(self.real(name, low, high))

    def choice(self, name: str, options: Sequence[Value]) -> Value:
        return self.parameters[name]


def share_of(value: float, interval: Range) -> float:
    """How far into an interval a value lies, on its own scale."""
    scale: Callable[[float], float] = math.log if interval.log else float
    low, high = scale(interval.low), scale(interval.high)
    return (scale(value) - low) / (high - low)


@dataclass
class Scores:
    """What one training was scored at, and what that took."""

    engine: Engine
    settings: EvaluationSettings
    seed: int
    found: dict[str, str] = field(default_factory=dict)
    """By name: a bit a problem, in hexadecimal digits."""
    seconds: float = 0.0

    def score(self, name: str, problems: Sequence[Problem], model: Any) -> None:
        begun = time.process_time()
        tokenizer, backend = self.engine.tokenizer, self.engine.scoring.backend(model)
        seed = derive_seed("evaluation", self.seed)
        items = evaluate(model, tokenizer, problems, self.settings, seed=seed, backend=backend).item_scores
        self.found[name] = np.packbits(np.array(items) > 0).tobytes().hex()
        self.seconds += time.process_time() - begun


def core(text: str) -> dict[str, Any]:
    """A study's file over the core space, whatever other knobs it has."""
    content: dict[str, Any] = yaml.safe_load(text)
    return {**content, "space": {"training": content["space"]["training"]}}


class World:
    """A study's engine, and its trainings."""

    def __init__(self, study: Path) -> None:
        content = core(study.read_text("utf-8"))
        self.config: StudyConfig = parse_study(placed(content, study.absolute()))
        self.engine = Engine(self.config)
        self.seed = derive_seed("study", self.config.search.seed)
        model = self.engine.resident.fresh(None, seed=self.seed)
        self.engine.scoring.prepare(model, lambda done, total: False)

    def train(self, point: Point) -> dict[str, Any]:
        """One design: its scores, and CPU seconds."""
        begun, engine = time.process_time(), self.engine
        settings = self.config.training.with_knobs(point.training)
        model = engine.resident.fresh(None, seed=self.seed)
        scores, search = Scores(engine, self.config.evaluation, self.seed), engine.problems["search"]
        half = search[: self.config.search.rung_problem_count(len(search))]
        raw = {round(share * settings.steps) for share in RUNGS["raw"]}

        def on_step(report: StepReport) -> bool:
            if report.step in raw:
                scores.score(f"raw/{report.step}", half, model)
            return False

        def show(step: int) -> bool:
            scores.score(f"decayed/{step}", half, model)
            return False

        try:
            with tempfile.TemporaryDirectory() as folder:
                train(
                    model, engine.data, point.target, settings, seed=self.seed, folder=Path(folder),
                    **engine.sources(point.target), on_step=on_step, looks=self._looks(settings.steps, show),
                    pad_token_id=engine.resident.pad_token_id, real_vocab=engine.resident.real_vocab,
                )  # fmt: skip
        except DivergedError as error:
            return {"diverged": error.step}
        trained = time.process_time() - begun - scores.seconds
        scores.score("end", search, model)
        scores.score("fresh", engine.problems["report"], model)
        return {**scores.found, "training_seconds": round(trained, 2), "scoring_seconds": round(scores.seconds, 2)}

    def _looks(self, steps: int, show: Callable[[int], bool]) -> list[Look]:
        rungs = [round(share * steps) for share in RUNGS["decayed"]]
        return [Look(rung, min(steps - rung, math.ceil(DECAY * rung)), show) for rung in rungs]


def design(config: StudyConfig, rows: Sequence[Mapping[str, Any]]) -> tuple[str, Point]:
    """Origin and point of the design that comes after those of `rows`."""
    index, baselines, space = len(rows), config.baseline_settings(), config.space
    if index < len(baselines):
        usual = {name: float(config.training.knob(name)) for name in space.training_knobs}
        return "published", Point(baselines[index].target(), usual | baselines[index].training)
    if index < DENSER or index % 2:
        return "random", space.sample(derive_seed("landscape", index))
    generator = random.Random(derive_seed("landscape", index))
    inside = sorted((row for row in rows if row["parameters"] and "end" in row), key=lambda row: -right(row["end"]))
    return "near", space.suggest(Near(generator.choice(inside[: len(rows) // BEST])["parameters"], generator))


def right(bits: str) -> int:
    """Problems that were solved."""
    return int(bits, 16).bit_count()


def solved(row: Mapping[str, Any], name: str = "end") -> float:
    """Share of the problems; 0 for a design that diverged."""
    bits = row.get(name)
    return 0.0 if bits is None else right(bits) / (4 * len(bits))


def grow(folder: Path, study: Path | None, count: int) -> None:
    """Train designs until there are `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, world = whole_rows(folder / OUT), World(build(folder, 0) if study is None else study)
    while len(rows) < count:
        origin, point = design(world.config, rows)
        facts = {"origin": origin, "title": point.target.title(), "training": dict(point.training)}
        row = {**facts, "parameters": world.config.space.parameters(point), **world.train(point)}
        with (folder / OUT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(f"{len(rows)}/{count} {origin} {solved(row):.3f} {row['title']}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--study", type=Path, help="a study's file; default: the quickstart's")
    parser.add_argument("--designs", type=int, default=300)
    parser.add_argument("--pack", type=Path, help="write the lines so far to this file, compressed; train nothing")
    given = parser.parse_args(argv)
    if given.pack is None:
        grow(given.folder, given.study, given.designs)
        return 0
    text = (given.folder / OUT).read_text("utf-8")
    lines = text[: text.rfind("\n") + 1]  # another process may be writing the rest
    given.pack.parent.mkdir(parents=True, exist_ok=True)
    given.pack.write_bytes(gzip.compress(lines.encode(), mtime=0))
    print(f"{len(lines.splitlines())} designs, {given.pack.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
