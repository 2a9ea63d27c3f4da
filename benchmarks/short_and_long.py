"""Does a short training rank designs as a long one does? Twelve designs at 1, 3 and 9 times a study's steps.

    OMP_NUM_THREADS=1 python benchmarks/short_and_long.py STUDY.yaml --out runs/short-and-long [--pair NAME] [--steps N]
        [--seeds 3] [--problems N]

Model, teacher, data, training, temperature and problems are the study's, of a campaign the one that `--pair` names; the
problems are its report problems, which no search has seen. `--steps` is the short length (default: the study's). Both
ends are trained with all seeds, what lies between with one. Every length has its own schedule of learning rates, as a
training of that length would have. Each training is a line of OUT/results.jsonl; a second call does what is missing, in
the order short to long, and `--table` only prints.

Spearman's rank correlation of the designs' scores between lengths, with 95 % intervals from resampling problems and
seeds; beside it that of two seeds of one length: no length can speak for another better than for itself. What is lost
by training only the short run's best in full. The change of each design's lead over plain SFT from short to long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from what_to_expect import group, whole_rows

from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.search.engine.inputs import Engine
from qtarget.search.study.campaign_config import load_campaign
from qtarget.search.study.config import StudyConfig
from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.loop.sft import DivergedError, train

LENGTHS = (1, 3, 9)
DESIGNS = 12
RESAMPLES = 2000
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """A target, and how many times the study's learning rate it is trained at."""

    name: str
    target: TargetSpec
    rate: float = 1.0


def designs(inputs: frozenset[str]) -> list[Design]:
    """The first twelve of a spread that these inputs allow: every kind, and plain SFT at three learning rates."""
    sft = presets.get("sft")
    spread = [Design("sft", sft), Design("sft, rate / 3", sft, 1 / 3), Design("sft, rate x 3", sft, 3.0)]
    for name, knobs in (
        ("beyond_log", {"alpha": 0.5}), ("dft", {}), ("sft_kl", {}), ("asft", {}), ("label_smoothing", {}),
        ("kd", {}), ("hybrid_kd", {}), ("target_sft", {"eta": 0.5}), ("target_sft", {"eta": 1.0}), ("cayley", {}),
        ("eaft", {}), ("talr", {}), ("flow", {}),
    ):  # fmt: skip
        title = " ".join([name, *map(str, knobs.values())])
        spread.append(Design(title, presets.get(name, **knobs)))
    return [each for each in spread if each.target.needs <= inputs][:DESIGNS]


class Results:
    """Right answers by design, length and seed: (P,) of 0 and 1, lines of `results.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[tuple[str, int, int], Scores] = {}
        for row in whole_rows(path):
            self.found[row["design"], row["length"], row["seed"]] = np.array([float(mark) for mark in row["right"]])

    def add(self, design: str, length: int, seed: int, right: Sequence[float], seconds: float) -> None:
        marks = "".join(str(round(each)) for each in right)
        row = {"design": design, "length": length, "seed": seed, "seconds": round(seconds, 1), "right": marks}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.found[design, length, seed] = np.array(right, dtype=float)

    def seeds(self, length: int, names: Sequence[str]) -> list[int]:
        """Seeds of a length that all designs have."""
        known = {seed for _, found, seed in self.found if found == length}
        return sorted(seed for seed in known if all((name, length, seed) in self.found for name in names))

    def table(self, length: int, names: Sequence[str]) -> Scores:
        """(designs, seeds, P) of the seeds that all designs have."""
        seeds = self.seeds(length, names)
        return np.array([[self.found[name, length, seed] for seed in seeds] for name in names])


class Place:
    """A study's model, data and report problems, loaded as its trials load them."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._engine = Engine(config)
        if not self._engine.problems["report"]:
            raise SystemExit("the study must keep report problems (`evaluation.report_problems`), but keeps none")

    def right(self, design: Design, steps: int, seed: int) -> Sequence[float]:
        """(P,) 1 where the trained model's one answer is right; zeros where the training diverged."""
        rate = self._config.training.learning_rate * design.rate
        training = self._config.training.model_copy(
            update={"steps": steps, "checkpoint_every": steps, "learning_rate": rate}
        )
        resident, problems = self._engine.resident, self._engine.problems["report"]
        model = resident.fresh()
        try:
            train(
                model, self._engine.data, design.target, training, seed=derive_seed("short and long", seed),
                folder=None, pad_token_id=resident.pad_token_id, real_vocab=resident.real_vocab,
                **self._engine.sources(design.target),
            )  # fmt: skip
        except DivergedError:
            return [0.0] * len(problems)
        scoring = self._config.evaluation.model_copy(update={"samples": 1, "racing": None})
        return evaluate(model, resident.tokenizer, problems, scoring, seed=0).item_scores


def wanted(chosen: Sequence[Design], seeds: int) -> Iterator[tuple[Design, int, int]]:
    """Trainings from short to long, seed by seed: whenever it is cut, whole columns are there."""
    for length in LENGTHS:
        inner = length not in (LENGTHS[0], LENGTHS[-1])
        for seed, design in itertools.product(range(1 if inner else seeds), chosen):
            yield design, length, seed


def run(config: StudyConfig, results: Results, steps: int, seeds: int) -> None:
    """Train what is missing."""
    missing = [each for each in wanted(designs(config.inputs), seeds) if (each[0].name, *each[1:]) not in results.found]
    place = Place(config) if missing else None
    for design, length, seed in missing:
        assert place is not None
        started = time.perf_counter()
        right = place.right(design, steps * length, seed)
        results.add(design.name, length, seed, right, time.perf_counter() - started)
        print(f"{design.name}, {length} x, seed {seed}: {np.mean(right):.3f}", flush=True)


def correlation(first: Scores, second: Scores) -> float:
    """Spearman's, of the designs' means over seeds and problems; NaN where all designs of a length score the same."""
    sides = [np.round(table.mean(axis=(1, 2)), 12) for table in (first, second)]
    if any(np.ptp(side) == 0 for side in sides):
        return math.nan
    return float(spearmanr(*sides).statistic)


def interval(first: Scores, second: Scores, generator: np.random.Generator) -> tuple[float, float]:
    """95 %, from resampling problems (the same in both) and seeds of each."""
    problems = first.shape[2]
    drawn = []
    for _ in range(RESAMPLES):
        of = generator.integers(problems, size=problems)
        picked = [each[:, generator.integers(each.shape[1], size=each.shape[1])][:, :, of] for each in (first, second)]
        drawn.append(correlation(*picked))
    known = [each for each in drawn if not math.isnan(each)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (math.nan, math.nan)
    return float(low), float(high)


def within(table: Scores) -> float:
    """Mean correlation of two seeds of one length."""
    pairs = itertools.combinations(range(table.shape[1]), 2)
    return float(np.mean([correlation(table[:, [one]], table[:, [other]]) for one, other in pairs]))


def lost(short: Scores, long: Scores, best: int) -> float:
    """How far the best of the `best` designs that lead the short run ends behind the best of all, in the long one."""
    scores = long.mean(axis=(1, 2))
    leading = np.argsort(-short.mean(axis=(1, 2)), kind="stable")[:best]
    return float(scores.max() - scores[leading].max())


def change(short: Scores, long: Scores, index: int, generator: np.random.Generator) -> tuple[float, float, float]:
    """How a design's lead over the first one changes from short to long, with its 95 % interval."""
    leads = [table[index] - table[0] for table in (short, long)]  # (seeds, P) each
    problems = leads[0].shape[1]
    drawn = []
    for _ in range(RESAMPLES):
        of = generator.integers(problems, size=problems)
        one, two = (lead[generator.integers(len(lead), size=len(lead))][:, of].mean() for lead in leads)
        drawn.append(two - one)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(leads[1].mean() - leads[0].mean()), float(low), float(high)


def report(results: Results, chosen: Sequence[Design]) -> Iterator[str]:
    """The lines that are printed: Markdown tables and sentences."""
    names = [each.name for each in chosen]
    tables = {length: results.table(length, names) for length in LENGTHS if results.seeds(length, names)}
    if not tables:
        raise SystemExit(f"{results.path} must hold all designs of one length, but does not yet; call without --table")
    generator = np.random.default_rng(0)
    yield from _scores(tables, chosen, generator)
    yield ""
    for length, table in tables.items():
        if table.shape[1] > 1:
            yield f"two seeds at {length} x: rank correlation {within(table):.2f}"
    for (one, first), (other, second) in itertools.combinations(tables.items(), 2):
        low, high = interval(first, second, generator)  # NaN: cannot be told
        yield (
            f"{one} x and {other} x: rank correlation {correlation(first, second):.2f} [{low:.2f}, {high:.2f}]; the "
            f"best of {one} x is {100 * lost(first, second, 1):.1f} points behind at {other} x, the best of its three "
            f"{100 * lost(first, second, 3):.1f}"
        )


def _scores(tables: Mapping[int, Scores], chosen: Sequence[Design], generator: np.random.Generator) -> Iterator[str]:
    lengths = list(tables)
    heads = [f"{length} x ({tables[length].shape[1]} seeds)" for length in lengths]
    yield f"| design | kind | {' | '.join(heads)} | lead over SFT, {lengths[0]} x to {lengths[-1]} x |"
    yield "|---" * (len(lengths) + 3) + "|"
    order = np.argsort(-tables[lengths[-1]].mean(axis=(1, 2)), kind="stable")
    for index in map(int, order):
        cells = [f"{100 * tables[length][index].mean():.1f}" for length in lengths]
        moved, low, high = change(tables[lengths[0]], tables[lengths[-1]], index, generator)
        shown = f"{100 * moved:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" if index else ""
        yield f"| {chosen[index].name} | {group(chosen[index].target)} | {' | '.join(cells)} | {shown} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study's file, or the folder of one, also of a campaign's")
    parser.add_argument("--out", type=Path, default=Path("runs/short-and-long"))
    parser.add_argument("--pair", help="of a campaign: the study whose name ends with it")
    parser.add_argument("--steps", type=int, help="of the short length; default: the study's")
    parser.add_argument("--problems", type=int, help="report problems; default: the study's")
    parser.add_argument("--seeds", type=int, default=3, help="at both ends")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = chosen_study(given.study, given.pair, given.problems)
    steps = given.steps or config.training.steps
    given.out.mkdir(parents=True, exist_ok=True)
    results = Results(given.out / "results.jsonl")
    problems = config.evaluation.report_problems
    claim(given.out / "settings.json", {"study": config.study, "steps": steps, "problems": problems})
    if not given.table:
        run(config, results, steps, given.seeds)
    for line in report(results, designs(config.inputs)):
        print(line)
    return 0


def chosen_study(path: Path, pair: str | None, problems: int | None) -> StudyConfig:
    """The one study of a file or folder that `pair` names, with so many report problems."""
    studies = [each for each in load_campaign([path]).studies if each.study.endswith(pair or "")]
    if len(studies) != 1:
        raise SystemExit(f"--pair must name one study, but {path} has {', '.join(each.study for each in studies)}")
    evaluation = studies[0].evaluation
    evaluation = evaluation.model_copy(update={"report_problems": problems or evaluation.report_problems})
    return studies[0].model_copy(update={"evaluation": evaluation})


def claim(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds trainings of other settings."""
    if path.exists() and json.loads(path.read_text("utf-8")) != settings:
        raise SystemExit(f"{path} must say {settings}, but is of other trainings; use another --out")
    path.write_text(json.dumps(settings) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
