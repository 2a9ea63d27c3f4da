"""Do averaged last weights make a run less dependent on its seed, without moving its mean?

    OMP_NUM_THREADS=1 python benchmarks/averaged_weights.py runs/averaged [--seeds 8] [--designs clean/sft]

A design is trained in a tiny world with as many seeds (data orders), once with the usual cosine decay and once with a
constant learning rate; of each run the last weights are scored, and the means of the weights over its last tenth,
quarter and half of the steps. Printed are the mean score and the standard deviation between runs, in points, with the
change of both from the last weights of the usual run, over the same seeds: the change of the mean with its standard
error, the ratio of the standard deviations with a 95 % interval (Pitman and Morgan 1939, which knows that both are of
the same seeds). Results are kept in `averaged.jsonl`; a second call does what is missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from what_to_expect import BATCH, LEARNING_RATE, STEPS, WORLDS, Place, whole_rows

from qtarget.evaluation.tiny_world.world import WorldSettings
from qtarget.spaces import presets
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.loop.sft import StepReport, train
from qtarget.trainers.settings import TrainingSettings

SHARES = (0.1, 0.25, 0.5)
"""Of the steps, at the end, whose weights are averaged."""
DECAYS = ("cosine", "constant")
USUAL = "cosine, last"


class Averages:
    """Running means of a model's weights over the last shares of its steps."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = list(model.parameters())
        self._means = {share: [torch.zeros_like(each) for each in self._parameters] for share in SHARES}
        self._counts = dict.fromkeys(SHARES, 0)

    def take(self, report: StepReport) -> bool:
        for share in SHARES:
            if report.step > (1 - share) * report.steps:
                self._counts[share] += 1
                for mean, now in zip(self._means[share], self._parameters, strict=True):
                    mean += (now.detach() - mean) / self._counts[share]
        return False

    def put(self, share: float) -> None:
        with torch.no_grad():
            for parameter, mean in zip(self._parameters, self._means[share], strict=True):
                parameter.copy_(mean)


def scores(place: Place, preset: str, decay: Any, seed: int) -> dict[str, float]:
    """Of one run: its last weights, and each of its averages."""
    settings = TrainingSettings(
        steps=STEPS, effective_batch=BATCH, micro_batch=BATCH, learning_rate=LEARNING_RATE, decay=decay,
        checkpoint_every=STEPS,
    )  # fmt: skip
    resident = place.resident
    model = resident.fresh()
    averages = Averages(model)
    train(
        model, place.data, presets.get(preset), settings, seed=derive_seed("averaged weights", seed), folder=None,
        reference=resident.reference(), teacher=resident.teacher, on_step=averages.take,
        pad_token_id=resident.pad_token_id, real_vocab=resident.real_vocab,
    )  # fmt: skip
    found = {f"{decay}, last": place.score(model)}
    for share in SHARES:
        averages.put(share)
        found[f"{decay}, last {share:.0%}"] = place.score(model)
    return found


def fill(path: Path, designs: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Train what is missing, seed by seed; returns all lines."""
    rows = whole_rows(path)
    known, places = {(row["design"], row["decay"], row["seed"]) for row in rows}, dict[str, Place]()
    for decay, seed, design in itertools.product(DECAYS, range(seeds), designs):
        if (design, decay, seed) in known:
            continue
        world, preset = design.split("/")
        if world not in places:
            places[world] = Place.build(path.parent / world, 0, WorldSettings(**WORLDS[world]), 256)
        found = scores(places[world], preset, decay, seed)
        row = {"design": design, "decay": decay, "seed": seed, "scores": found}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Each design's ways to end a run, beside the usual one."""
    yield "| design | weights | mean | change | sd between runs | ratio of sds |\n|---|---|--:|--:|--:|--:|"
    for design in dict.fromkeys(row["design"] for row in rows):
        columns: dict[str, dict[int, float]] = {}
        for row in (each for each in rows if each["design"] == design):
            for name, score in row["scores"].items():
                columns.setdefault(name, {})[row["seed"]] = 100 * score
        for name, column in columns.items():
            shared = sorted(column.keys() & columns[USUAL].keys())
            if len(shared) > 2:
                one, other = (np.array([each[seed] for seed in shared]) for each in (column, columns[USUAL]))
                yield f"| {design} | {name} | {_row(one, other, name == USUAL)} |"


def _row(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], usual: bool) -> str:
    mean, spread = f"{one.mean():.1f}", f"{one.std(ddof=1):.1f}"
    if usual:
        return f"{mean} | | {spread} |"
    change, (ratio, low, high) = one - other, ratio_of_sds(one, other)
    error = change.std(ddof=1) / np.sqrt(len(change))
    return f"{mean} | {change.mean():+.1f} ± {error:.1f} | {spread} | {ratio:.2f} [{low:.2f}, {high:.2f}]"


def ratio_of_sds(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """The ratio of the standard deviations of paired columns, with its 95 % interval (Pitman and Morgan 1939)."""
    count, ratio = len(one), float(one.var(ddof=1) / other.var(ddof=1))
    correlation = float(np.corrcoef(one, other)[0, 1])
    half = 2 * (1 - correlation**2) * stats.t.isf(0.025, count - 2) ** 2 / (count - 2)
    spread = 1 + half
    low = spread - np.sqrt(spread**2 - 1)
    return float(np.sqrt(ratio)), float(np.sqrt(ratio * low)), float(np.sqrt(ratio / low))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--designs", nargs="+", default=["clean/sft", "noisy/target_sft", "strong teacher/kd"])
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for line in table(fill(given.out / "averaged.jsonl", given.designs, 0 if given.table else given.seeds)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
