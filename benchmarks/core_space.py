"""Would the default space find more with another family in it? Searches of 30 trials in the tiny worlds.

    OMP_NUM_THREADS=1 python benchmarks/core_space.py runs/core-space [--seeds 0 1 2] [--worlds noisy ...]

Worlds, steps and batches are those of `what_to_expect.py`. Each arm searches its own space with a study's own sampler:
first the baselines of a study that names none (the same trainings in all arms), then the published point of the added
family, then what the sampler draws, the learning rate along. The best of the search is trained twice more with other
seeds and scored on problems that the search did not see: that mean is the arm's result, and an arm is compared with the
core in the same world of the same seed. Trainings are appended to `trainings.jsonl`; a second call trains what is
missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from scipy import stats
from what_to_expect import LEARNING_RATE, SCORED, STEPS, WORLDS, Place, whole_rows

from qtarget.evaluation.problems.load import load_problems
from qtarget.evaluation.tiny_world.world import WorldSettings
from qtarget.search.store.sampling import Chooser, make_sampler
from qtarget.search.study.config import PUBLISHED
from qtarget.search.study.parts import SearchSettings
from qtarget.spaces import Point, SearchSpace, presets
from qtarget.spaces.identity import canonical_id

CORE = SearchSpace()
EXPONENT = {"options": [0.0, 1.0]}
ADDED: dict[str, tuple[str, dict[str, Any]]] = {
    "core": ("", {}),
    "core + bump": ("luffy", {"gamma": {"shaping": {}}}),
    "core + surprise": ("cadft", {"gamma": {"sequence_outlier": {"exponent": EXPONENT}}}),
    "core + label anchor": (
        "asft_k3",
        {"gamma": {"label_penalty": {"exponent": EXPONENT}}, "residual": {"student": {}}},
    ),
}
"""Arms: the published point that the added family starts from, and what is added to the core. The anchor's trust may be
above 1 or below 0, which says little of what a residual should get: it is the student in half of the draws."""
RATES = {"learning_rate": [3e-4, 3e-3, "log"]}
TRIALS, REPEATS = 30, 2
WHERE = ("noisy", "known format")


def space_of(arm: str) -> SearchSpace:
    """The core with what the arm adds, and the learning rates of these worlds."""
    parts = {part: dict(getattr(CORE, part)) for part in ("gamma", "residual")}
    for part, families in ADDED[arm][1].items():
        parts[part] |= families
    return SearchSpace.model_validate({**parts, "training": RATES})


@dataclass
class Trainings:
    """What was trained already: lines of `trainings.jsonl`."""

    path: Path
    scores: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scores = {row["key"]: row["score"] for row in whole_rows(self.path)}

    def score(self, place: Place, world: str, point: Point, repeat: int, steps: int) -> float:
        """The score of a point; one that diverged scores 0."""
        rate = point.training["learning_rate"]
        key = f"{world}/{place.seed}/{canonical_id(point.target)[:16]}/{rate:.8g}/{repeat}"
        if key not in self.scores:
            started = time.perf_counter()
            score = place.trained(point.target, steps, rate, repeat) or 0.0
            facts = {"key": key, "title": point.target.title(), "score": score}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**facts, "seconds": round(time.perf_counter() - started, 2)}) + "\n")
            self.scores[key] = score
        return self.scores[key]


@dataclass(frozen=True)
class Found:
    """What one search ended with."""

    world: str
    seed: int
    arm: str
    title: str
    family: str
    searched: float
    """The best score of the search, which luck has a share in."""
    fresh: float
    """Its mean with other seeds on other problems."""


def search(trainings: Trainings, place: Place, fresh: Place, world: str, arm: str, trials: int, steps: int) -> Found:
    """One search, and its best design trained again."""
    space, settings = space_of(arm), SearchSettings(trials=trials, seed=place.seed)
    study = optuna.create_study(direction="maximize")
    names = [*PUBLISHED, *filter(None, [ADDED[arm][0]])]
    published = [Point(presets.get(name), {"learning_rate": LEARNING_RATE}) for name in names]
    inside = [(point, space.parameters(point)) for point in published]
    for _, parameters in inside:
        if parameters is not None:
            study.enqueue_trial(parameters)
    points: list[Point] = []
    for number in range(trials - sum(parameters is None for _, parameters in inside)):
        study.sampler = make_sampler(settings, number, space)
        trial = study.ask()
        points.append(space.suggest(Chooser(trial)))
        study.tell(trial, trainings.score(place, world, points[-1], 0, steps))
    best = study.best_trial
    point = points[best.number]
    again = [trainings.score(fresh, world, point, repeat, steps) for repeat in range(1, REPEATS + 1)]
    target, score = point.target, float(best.value or 0)
    return Found(world, place.seed, arm, target.title(), target.gamma.kind, score, float(np.mean(again)))


def places(folder: Path, seed: int, settings: WorldSettings, scored: int) -> tuple[Place, Place]:
    """A world to search in, and the same with problems that the search does not see."""
    place = Place.build(folder, seed, settings, scored)
    seen = frozenset(problem.question_hash for problem in place.problems)
    others = load_problems(place.settings, folder, seed, seen, place.data.style).search
    assert not seen & {problem.question_hash for problem in others}
    return place, replace(place, problems=others)


def run(
    out: Path,
    seeds: Iterable[int],
    worlds: Mapping[str, Mapping[str, Any]],
    arms: Sequence[str] = tuple(ADDED),
    *,
    trials: int = TRIALS,
    steps: int = STEPS,
    scored: int = SCORED,
) -> list[Found]:
    """Every search, seed by seed; what is in `trainings.jsonl` is not trained again."""
    out.mkdir(parents=True, exist_ok=True)
    trainings, found = Trainings(out / "trainings.jsonl"), []
    for seed in seeds:
        for world, changes in worlds.items():
            folder = out / f"{world}-{seed}".replace(" ", "-")
            place, fresh = places(folder, seed, WorldSettings(**changes), scored)
            for arm in arms:
                found.append(search(trainings, place, fresh, world, arm, trials, steps))
                print(found[-1], flush=True)
    return found


def table(found: Sequence[Found]) -> str:
    """Markdown: each arm's mean, and its mean difference to the core over worlds and seeds with a 95 % interval."""
    scores = {(each.world, each.seed, each.arm): each for each in found}
    lines = ["| space | pairs | found | found again | less the core's | new family won |", "|---" * 6 + "|"]
    for arm in dict.fromkeys(each.arm for each in found):
        own = [each for each in found if each.arm == arm]
        gains = np.array([each.fresh - scores[each.world, each.seed, "core"].fresh for each in own])
        won = sum(each.family not in CORE.gamma for each in own)
        means = [100 * float(np.mean([getattr(each, name) for each in own])) for name in ("searched", "fresh")]
        gain = "" if arm == "core" else interval(100 * gains)
        lines.append(f"| {arm} | {len(own)} | {means[0]:.1f} | {means[1]:.1f} | {gain} | {won} of {len(own)} |")
    return "\n".join(lines)


def interval(gains: np.ndarray[Any, Any]) -> str:
    """Mean and 95 % interval of Student's t."""
    if len(gains) < 2:
        return f"{gains.mean():+.1f}"
    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return f"{gains.mean():+.1f} ({gains.mean() - half:+.1f} to {gains.mean() + half:+.1f})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WHERE))
    parser.add_argument("--arms", nargs="+", choices=list(ADDED), default=list(ADDED), help="`core` among them")
    parser.add_argument("--trials", type=int, default=TRIALS)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    worlds = {name: WORLDS[name] for name in given.worlds}
    print(table(run(given.out, given.seeds, worlds, given.arms, trials=given.trials)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
