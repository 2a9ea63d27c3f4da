"""Can designs be ranked without training, by where their first gradient points?

    OMP_NUM_THREADS=1 python benchmarks/gradient_ranks.py TABLE WORLD OUT.jsonl [--batches 4]
    python benchmarks/gradient_ranks.py TABLE WORLD OUT.jsonl --table

TABLE holds designs that were trained (`landscape.py`), WORLD its folder. At the weights that all trainings start from,
the gradient of each design's loss over its first effective batches is compared with that of the cross-entropy on
verified solutions of search problems: `teacher`, greedy answers of the teacher that the evaluator found right, which a
user would have; `gold`, the working that the world's demonstrations have before noise, which nobody has.

- inner: their inner product, to first order the fall of the verified solutions' loss for a step of gradient descent;
- cosine: the same without lengths;
- adam: the inner product of the verified gradient with the sign of the design's, times its learning rate, which is the
  first step of AdamW.

Spearman's ρ with the scores at the end, with intervals of 95 % from resampling designs, and beside it the ρ of the
rungs that a study may have. A line of OUT a design; those that are there already are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from landscape import World, design, right
from replay_table import Row, Shares, Table
from scipy.stats import spearmanr
from what_to_expect import whole_rows

from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.scoring.items import read_items
from qtarget.evaluation.tiny_world.study import study_text
from qtarget.evaluation.tiny_world.sums import new_solution
from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.data.batches import BatchOrder
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.settings import DataSettings

RESAMPLES = 2000
WAYS = ("inner", "cosine", "adam")


def verified(world: World, kind: str) -> Demonstrations:
    """Right solutions of search problems, as demonstrations."""
    rows = _gold(world) if kind == "gold" else _answers(world)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verified.jsonl"
        lines = (json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in rows)
        path.write_text("\n".join(lines), encoding="utf-8")
        return load_demonstrations(DataSettings(path=str(path)), world.engine.tokenizer, Path(folder))


def _gold(world: World) -> Iterator[tuple[str, str]]:
    for problem in world.engine.problems["search"]:
        first, second = map(int, problem.prompt.split("+"))
        yield problem.prompt, new_solution((first, second))


def _answers(world: World) -> Iterator[tuple[str, str]]:
    """What the teacher answers, greedily, where that is right."""
    engine, problems = world.engine, world.engine.problems["search"]
    assert engine.resident.teacher is not None
    model: Any = engine.resident.teacher.model
    with tempfile.TemporaryDirectory() as folder:
        path, seed = Path(folder) / "items.jsonl", derive_seed("evaluation", world.seed)
        backend = engine.scoring.backend(model)
        evaluate(
            model, engine.tokenizer, problems, world.config.evaluation, seed=seed, items_path=path, backend=backend
        )
        questions = {problem.id: problem.prompt for problem in problems}
        for item in read_items(path):
            if item.verdict == "correct":
                yield questions[item.problem], item.completion


def gradient(world: World, model: Any, data: Demonstrations, target: TargetSpec, batches: int) -> torch.Tensor:
    """(parameters,) of the mean loss over the first `batches` effective batches, each weighted by its tokens."""
    engine, size = world.engine, world.config.training.effective_batch
    sources = engine.sources(target)
    objective = Objective(model, sources["reference"], sources["teacher"], real_vocab=engine.resident.real_vocab)
    order = BatchOrder(data, size, world.seed, engine.resident.pad_token_id)
    parameters = [each for each in model.parameters() if each.requires_grad]
    total, tokens = torch.zeros(sum(each.numel() for each in parameters)), 0
    for step in range(batches):
        batch = order.at(step)
        tokens += batch.num_tokens
        for micro in batch.micro_batches(size):
            loss = objective.loss(micro, target.at(0.0)).loss_sum
            total += torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)])
    return total / tokens


def compare(own: torch.Tensor, wanted: torch.Tensor, rate: float) -> dict[str, float]:
    """What the first gradient says of a design, by way."""
    inner = float(own @ wanted)
    lengths = float(own.norm() * wanted.norm())
    return {
        "inner": inner,
        "cosine": inner / lengths if lengths else 0.0,
        "adam": rate * float(torch.sign(own) @ wanted),
    }


def measure(table: Table, world: World, out: Path, batches: int) -> None:
    """Every design that OUT lacks."""
    done, model = {row["title"] for row in whole_rows(out)}, world.engine.resident.fresh(None, seed=world.seed)
    model.eval()
    wanted = {}
    for kind in ("teacher", "gold"):
        data = verified(world, kind)
        print(f"{len(data)} verified solutions: {kind}", flush=True)
        steps = max(1, len(data) // world.config.training.effective_batch)
        wanted[kind] = gradient(world, model, data, presets.get("sft"), steps)
    for index, row in enumerate(table.rows):
        if row["title"] in done:
            continue
        inside = row["parameters"]
        point = table.space.suggest(Shares(inside)) if inside else design(world.config, table.rows[:index])[1]
        found = gradient(world, model, world.engine.data, point.target, batches)
        rate = float(row["training"]["learning_rate"])
        said = {kind: compare(found, each, rate) for kind, each in wanted.items()}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"title": row["title"], **said}) + "\n")


def show(table: Table, out: Path) -> None:
    """A line per way to rank, over all designs and over the better half."""
    found = {row["title"]: row for row in whole_rows(out)}
    rows = [row for row in table.rows if row["title"] in found and "end" in row]
    ends = np.array([right(row["end"]) for row in rows])
    said = {f"{kind} {way}": np.array([found[row["title"]][kind][way] for row in rows])
            for kind in ("teacher", "gold") for way in WAYS}  # fmt: skip
    said["learning rate"] = np.array([float(row["training"]["learning_rate"]) for row in rows])
    said |= {name: np.array([right(row[name]) for row in rows]) for name in rungs(rows)}
    better, generator = ends >= np.median(ends), np.random.default_rng(0)
    print(f"{len(rows)} designs\n{'ranked by':>16}  rho of all [95 %]        of the better half [95 %]")
    for name, values in said.items():
        both = [_rho(values[part], ends[part], generator) for part in (np.full(len(rows), True), better)]
        print(f"{name:>16}  {both[0]:24} {both[1]}")


def rungs(rows: Sequence[Row]) -> list[str]:
    return [name for name in rows[0] if name.startswith(("raw/", "decayed/"))]


def _rho(values: Any, ends: Any, generator: np.random.Generator) -> str:
    draws = generator.integers(len(ends), size=(RESAMPLES, len(ends)))
    low, high = np.nanpercentile([spearmanr(values[draw], ends[draw]).statistic for draw in draws], [2.5, 97.5])
    return f"{spearmanr(values, ends).statistic:5.2f} [{low:.2f}, {high:.2f}]"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landscape", type=Path)
    parser.add_argument("world", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batches", type=int, default=4, help="effective batches of each design's gradient")
    parser.add_argument("--table", action="store_true", help="what OUT holds so far")
    given = parser.parse_args(argv)
    table = Table(given.landscape, study_text(0))
    if not given.table:
        measure(table, World(given.world / "study.yaml"), given.out, given.batches)
    show(table, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
