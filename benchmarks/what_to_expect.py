"""Which kind of target wins when? Every published objective in five tiny worlds that differ in one thing each.

    OMP_NUM_THREADS=1 python benchmarks/what_to_expect.py runs/what-to-expect [--seeds 0 1 2] [--docs docs]

`noisy` is a smaller quickstart: 20 % of the demonstrations' digits are wrong, their format is new, the base can add,
the teacher is stopped at 10 %. Each other world changes one of these. A seed is a world of its own: base, teacher,
demonstrations, data order. All objectives have their published knobs, the same steps and the same learning rate.
Results are appended to `results.jsonl`, one line a training; a second call does what is missing. `--docs` writes the
table into `what-to-expect.md` of that folder, and draws `what-to-expect.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qtarget.evaluation.problems.load import Problem, load_problems
from qtarget.evaluation.scoring.evaluate import evaluate
from qtarget.evaluation.settings import EvaluationSettings, TaskSettings
from qtarget.evaluation.tiny_world.sums import DIGITS
from qtarget.evaluation.tiny_world.world import DEMONSTRATIONS, PROBLEMS, WorldSettings, build
from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.curves import curves
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import DivergedError, train
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings

NOISY = {"width": 64, "layers": 2, "pretraining_steps": 400, "demonstrations": 2000, "noise": 0.2}
WORLDS: dict[str, dict[str, Any]] = {
    "noisy": NOISY,
    "clean": NOISY | {"noise": 0.0},
    "known format": NOISY | {"familiar": 0.5},
    "weak prior": NOISY | {"pretraining_steps": 250},
    "strong teacher": NOISY | {"teacher_score": 0.8, "teacher_steps": 400},
}
"""Settings of each world."""
BUT_FOR_THE_TEACHER = {"strong teacher": "noisy"}
"""Worlds of the same base and demonstrations: what asks no teacher is the same training in both."""
STEPS, LEARNING_RATE, BATCH, SCORED = 60, 1e-3, 24, 128
GROUPS = {
    "distilled": "#0072b2", "anchored to the base": "#009e73", "trusts what it believes": "#d55e00",
    "label first": "#444444",
}  # fmt: skip
"""Kinds of objectives and their colours, in the figure's order from below."""
MARKS = ("<!-- results -->\n", "<!-- end of results -->")
"""Lines of the page between which the table stands."""
BEFORE = ("base", "teacher")
"""What is scored without training."""


def group(target: TargetSpec) -> str:
    """Which kind of objective a target is: by what it looks at, else by whether an unlikely label still moves it."""
    if "teacher" in target.needs:
        return "distilled"
    if "reference" in target.needs:
        return "anchored to the base"
    if "critical" in target.needs:
        return "label first"
    push = curves(target).push
    return "label first" if push[3] > push.mean() else "trusts what it believes"  # p = 0.01


@dataclass
class Place:
    """One world of one seed, loaded."""

    resident: ResidentModel
    data: Any
    problems: Sequence[Problem]
    settings: EvaluationSettings
    seed: int

    @classmethod
    def build(cls, folder: Path, seed: int, settings: WorldSettings, scored: int) -> Place:
        build(folder, seed, settings=settings)
        _mark_digits(folder)
        models = {name: ModelSettings(path=name) for name in BEFORE}
        resident = ResidentModel(models["base"], folder, reference=True, teacher=models["teacher"])
        data = DataSettings(path="marked.jsonl", max_length=64, critical_column="critical")
        loaded = load_demonstrations(data, resident.tokenizer, folder)
        resident.meet(loaded, chat=True)
        scoring = EvaluationSettings(
            tasks=(TaskSettings(path=PROBLEMS, kind="exact"),), problems=scored, report_problems=0, max_new_tokens=32,
            batch_size=scored,
        )  # fmt: skip
        problems = load_problems(scoring, folder, seed, frozenset(), loaded.style).search
        return cls(resident, loaded, problems, scoring, seed)

    def score(self, model: Any) -> float:
        """Exact match, greedy."""
        return evaluate(model, self.resident.tokenizer, self.problems, self.settings, seed=0).score

    def trained(
        self, target: TargetSpec, steps: int, learning_rate: float = LEARNING_RATE, repeat: int = 0
    ) -> float | None:
        """The score after training towards `target`, the `repeat`-th time; None where it diverged."""
        settings = TrainingSettings(
            steps=steps, effective_batch=BATCH, micro_batch=BATCH, learning_rate=learning_rate, checkpoint_every=steps
        )
        model = self.resident.fresh()
        seed = derive_seed("what to expect", self.seed, *([repeat] if repeat else []))
        try:
            train(
                model, self.data, target, settings, seed=seed, folder=None,
                reference=self.resident.reference(), teacher=self.resident.teacher,
                pad_token_id=self.resident.pad_token_id, real_vocab=self.resident.real_vocab,
            )  # fmt: skip
        except DivergedError:
            return None
        return self.score(model)


def _mark_digits(folder: Path) -> None:
    """Demonstrations with every digit marked: where a wrong choice makes a wrong answer."""
    rows = [json.loads(line) for line in (folder / DEMONSTRATIONS).read_text("utf-8").splitlines()]
    marked = [
        row | {"critical": [[at, at + 1] for at, letter in enumerate(row["completion"]) if letter in DIGITS]}
        for row in rows
    ]
    (folder / "marked.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in marked), "utf-8")


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file that calls add to; the half line that a killed one may have left is cut off."""
    text = path.read_text("utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return [json.loads(line) for line in whole.splitlines()]


class Results:
    """Lines of `results.jsonl`, by world, seed and objective."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = whole_rows(path)
        self.scores: dict[tuple[Any, ...], float | None] = {
            (row["world"], row["seed"], row["name"]): row["score"] for row in rows
        }

    def add(self, world: str, seed: int, name: str, score: float | None, seconds: float) -> None:
        row = {"world": world, "seed": seed, "name": name, "score": score, "seconds": round(seconds, 2)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.scores[world, seed, name] = score

    def mean(self, world: str, name: str) -> float:
        """Over the seeds that are done; a training that diverged scores 0."""
        found = [score or 0.0 for (where, _, who), score in self.scores.items() if (where, who) == (world, name)]
        return sum(found) / len(found)


def run(
    out: Path,
    seeds: Iterable[int],
    names: Sequence[str] | None = None,
    worlds: Mapping[str, Mapping[str, Any]] = WORLDS,
    *,
    steps: int = STEPS,
    scored: int = SCORED,
) -> Results:
    """Train what `results.jsonl` in `out` lacks, seed by seed."""
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "results.jsonl")
    wanted = [*BEFORE, *(names or presets.names())]
    for seed in seeds:
        for world, changes in worlds.items():
            _take_over(results, world, seed, wanted)
            missing = [name for name in wanted if (world, seed, name) not in results.scores]
            if not missing:
                continue
            place = Place.build(out / f"{world}-{seed}".replace(" ", "-"), seed, WorldSettings(**changes), scored)
            for name in missing:
                started = time.perf_counter()
                score = _score(place, name, steps)
                results.add(world, seed, name, score, time.perf_counter() - started)
            print(f"{world}, seed {seed}: {len(missing)} done", flush=True)
    return results


def _take_over(results: Results, world: str, seed: int, names: Iterable[str]) -> None:
    """Copy what another world has trained already, bit for bit."""
    for name in names:
        known = (BUT_FOR_THE_TEACHER.get(world), seed, name)
        if known not in results.scores or (world, seed, name) in results.scores or name == "teacher":
            continue
        if name == "base" or "teacher" not in presets.get(name).needs:
            results.add(world, seed, name, results.scores[known], 0.0)


def _score(place: Place, name: str, steps: int) -> float | None:
    if name == "base":
        return place.score(place.resident.fresh())
    if name == "teacher":
        assert place.resident.teacher is not None
        return place.score(place.resident.teacher.model)
    return place.trained(presets.get(name), steps)


def ordered(results: Results) -> list[str]:
    """Objectives by kind, within a kind by their mean over all worlds, the worst first."""
    names = {name for _, _, name in results.scores} - set(BEFORE)
    worlds = {world for world, _, _ in results.scores}
    kinds = list(GROUPS)

    def place(name: str) -> tuple[int, float, str]:
        mean = sum(results.mean(world, name) for world in worlds) / len(worlds)
        return kinds.index(group(presets.get(name))), mean, name

    return sorted(names, key=place)


def table(results: Results, worlds: Sequence[str]) -> str:
    """Markdown: exact match in points, mean over the seeds."""
    lines = [f"| objective | kind | {' | '.join(worlds)} |", "|---" * (len(worlds) + 2) + "|"]
    for name in [*BEFORE, *reversed(ordered(results))]:
        kind = "before training" if name in BEFORE else group(presets.get(name))
        cells = [f"{100 * results.mean(world, name):.0f}" for world in worlds]
        lines.append(f"| `{name}` | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(results: Results, worlds: Sequence[str], folder: Path) -> None:
    """Put table and figure into the documentation."""
    page, (begin, end) = folder / "what-to-expect.md", MARKS
    head, rest = page.read_text("utf-8").split(begin)
    seeds = ", ".join(f"{world} {len({s for w, s, _ in results.scores if w == world})}" for world in worlds)
    said = f"Seeds done: {seeds}.\n\n{table(results, worlds)}\n"
    page.write_text(f"{head}{begin}{said}{end}{rest.split(end)[1]}", "utf-8")
    draw(results, worlds, folder / "what-to-expect.png")


def draw(results: Results, worlds: Sequence[str], path: Path) -> None:
    """One panel a world: each objective's seeds and their mean, beside plain SFT's mean."""
    from matplotlib.figure import Figure

    names = ordered(results)
    figure = Figure(figsize=(2.6 * len(worlds) + 1.6, 0.21 * len(names) + 1.4), layout="constrained")
    panels = figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
    colours = [GROUPS[group(presets.get(name))] for name in names]
    for panel, world in zip(panels, worlds, strict=True):
        panel.axvline(results.mean(world, "sft"), color="#444444", linewidth=0.8, linestyle=(0, (4, 2)))
        panel.axvline(results.mean(world, "base"), color="#bbbbbb", linewidth=0.8)
        panel.axvline(results.mean(world, "teacher"), color="#0072b2", linewidth=0.8, linestyle=(0, (1, 2)))
        for height, (name, colour) in enumerate(zip(names, colours, strict=True)):
            seeds = [score or 0.0 for (where, _, who), score in results.scores.items() if (where, who) == (world, name)]
            panel.plot([min(seeds), max(seeds)], [height, height], color=colour, linewidth=1, alpha=0.45)
            panel.plot(results.mean(world, name), height, "o", color=colour, markersize=4)
        panel.set_title(world, loc="left", fontsize=10, fontweight="bold")
        panel.set_xlim(-0.03, 1.03)
        panel.set_xticks([0, 0.5, 1], ["0", "50", "100"])
        panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(length=2, labelsize=8)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    for label, colour in zip(panels[0].get_yticklabels(), colours, strict=True):
        label.set_color(colour)
    panels[0].set_xlabel("exact match, points", loc="left", fontsize=8)
    legend = [
        panels[-1].plot([], [], "o", color=colour, markersize=4, label=kind)[0] for kind, colour in GROUPS.items()
    ]
    figure.legend(handles=legend[::-1], loc="outside lower right", ncols=len(GROUPS), fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--presets", nargs="+", choices=presets.names())
    parser.add_argument("--docs", type=Path, help="folder with what-to-expect.md, whose table and figure are renewed")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = run(given.out, given.seeds, given.presets, {name: WORLDS[name] for name in given.worlds})
    print(table(results, given.worlds))
    if given.docs:
        write_page(results, given.worlds, given.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
