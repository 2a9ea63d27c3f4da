"""How often does a study announce a winner that is none, and how often does it find a real one? By simulation.

    python benchmarks/honesty.py [--studies 400] [--trials 30] [--problems 256] [--report-problems 512] [--seeds 12]

A simulated study: problems of different difficulty; each training run shifts all of them a little (seed noise) and each
of them by itself (run-problem noise); one completion per item. All trials are scored on the same search problems. The
best designs, Target-SFT's default and plain SFT are then trained again with fresh seeds, scored on other problems, and
race until the rules decide (`evaluation/statistics/finals.py`). In the null space all designs are equal. In the other
one, one design is truly 8 points better. Beside it stands what one gets without confirmation: the best trial's lead
over plain SFT.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qtarget.evaluation.statistics.confirmation import Outcome, conclude
from qtarget.evaluation.statistics.evidence import Tables
from qtarget.evaluation.statistics.finals import Finals
from qtarget.evaluation.statistics.settings import FinalsSettings
from qtarget.evaluation.statistics.standing import Line
from qtarget.evaluation.statistics.stats import sign_flip_test, wilson
from qtarget.spaces.identity import derive_seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Sizes and noise of a simulated study."""

    trials: int = 30
    problems: int = 256
    report_problems: int = 512
    seeds: int = 12
    """Most fresh seeds of a candidate."""
    designs: int = 2
    """Best designs of the search that are confirmed, beside Target-SFT's default."""
    accuracy: float = 0.4
    """Of plain SFT."""
    difficulty: float = 1.5
    """Standard deviation over problems, logits."""
    seed_noise: float = 0.08
    """Standard deviation over runs of the shift of all problems, logits; 0.08 is about 1.5 points."""
    run_problem_noise: float = 0.7
    """Standard deviation of a run's shift of one problem, logits."""
    uneven: float = 1.0
    """Factor on the seed noise of every other design."""


@dataclass(frozen=True)
class Study:
    """Outcome of one simulated study."""

    better: bool
    """Verdict `better than SFT` for any design."""
    true_winner: bool
    """The truly better design was found and is better than SFT by the verdict."""
    naive_lead: float
    """Search score of the best trial minus that of plain SFT."""
    naive_significant: bool
    """The best trial beats plain SFT on the search problems by an uncorrected paired test at 5 %."""
    effect: float
    """Confirmed effect of the best design of the search."""
    trainings: int
    """Of the confirmation."""


SFT, TARGET_SFT, BETTER_DESIGN = 0, 1, 2


def simulate(world: World, lift: float, generator: np.random.Generator) -> Study:
    """One study in which design 2 is better than the others by `lift` logits."""
    centre = _centre(world)
    search = centre + world.difficulty * generator.normal(size=world.problems)
    report = centre + world.difficulty * generator.normal(size=world.report_problems)
    scores = np.array([_run(world, search, design, lift, generator) for design in range(world.trials)])
    means = scores.mean(axis=1)
    ranked = [int(i) for i in np.argsort(-means, kind="stable") if i != SFT]
    chosen = [SFT, *[each for each in ranked if each != TARGET_SFT][: world.designs], TARGET_SFT]
    tables = [
        np.column_stack([_run(world, report, design, lift, generator) for _ in range(world.seeds)]) for design in chosen
    ]
    evidence = Tables([*tables, *(np.zeros((world.report_problems, 0)) for _ in chosen)])
    settings = FinalsSettings(seeds=world.seeds, detect=0.05, longer=None)
    race = Finals(Line(len(chosen), len(chosen) - 1), settings, evidence)
    race.run()
    found = conclude(race, evidence, [str(design) for design in chosen], generator, resamples=10)
    better = {comparison.title for comparison in found.comparisons if comparison.outcome is Outcome.BETTER}
    best = scores[ranked[0]]
    return Study(
        better=bool(better),
        true_winner=str(BETTER_DESIGN) in better,
        naive_lead=float(best.mean() - means[SFT]),
        naive_significant=bool(best.mean() > means[SFT] and sign_flip_test(best - scores[SFT]) <= 0.05),
        effect=found.comparisons[0].effect,
        trainings=found.trainings,
    )


def _run(world: World, difficulty: Array, design: int, lift: float, generator: np.random.Generator) -> Array:
    """Right (1) or wrong (0) on each problem, for one training run of a design."""
    noise = world.seed_noise * (world.uneven if design % 2 else 1.0)
    shift = noise * generator.normal() + (lift if design == BETTER_DESIGN else 0.0)
    logits = difficulty + shift + world.run_problem_noise * generator.normal(size=difficulty.shape)
    return (generator.random(difficulty.shape) < 1 / (1 + np.exp(-logits))).astype(float)


def _accuracy(world: World, centre: float) -> float:
    """Expected accuracy at a mean logit, by Gauss-Hermite quadrature over all noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    spread = np.sqrt(world.difficulty**2 + world.run_problem_noise**2 + world.seed_noise**2)
    return float(weights @ (1 / (1 + np.exp(-(centre + spread * nodes)))) / weights.sum())


@lru_cache
def _centre(world: World, points: float = 0.0) -> float:
    """Mean logit at which the accuracy is `world.accuracy` plus `points`, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _accuracy(world, middle) < world.accuracy + points else (low, middle)
    return low


def run(world: World, studies: int, points: float) -> list[Study]:
    """Independent studies in which design 2 is better by `points` (0.08 = 8 points) of accuracy."""
    lift = _centre(world, points) - _centre(world)
    generators = [np.random.default_rng(derive_seed("honesty", points, index)) for index in range(studies)]
    return [simulate(world, lift, generator) for generator in generators]


def share(flags: list[bool]) -> str:
    """A share with its 95 % Wilson interval."""
    low, high = wilson(sum(flags), len(flags))
    return f"{np.mean(flags):6.1%}  [{low:.1%}, {high:.1%}]"


def main() -> None:
    """Print the null space and the space with a better design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--points", type=float, default=8.0)
    for name in ("trials", "problems", "report_problems", "seeds", "designs"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(World, name))
    for name in ("seed_noise", "uneven"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(World, name))
    arguments = vars(parser.parse_args())
    studies, points = arguments.pop("studies"), arguments.pop("points") / 100
    world = World(**arguments)
    null = run(world, studies, 0.0)
    print(f"{studies} studies of {world.trials} trials, all designs equal")
    print(f"  better than SFT, by confirmation                 {share([study.better for study in null])}")
    print(f"  best trial ahead of SFT on the search problems   {share([study.naive_lead > 0 for study in null])}")
    print(f"  ... and significant at 5 %, uncorrected          {share([s.naive_significant for s in null])}")
    print(f"  mean trainings of a confirmation                 {np.mean([study.trainings for study in null]):.1f}")
    print(
        f"  mean lead of the best trial {100 * np.mean([s.naive_lead for s in null]):+.1f} points; confirmed "
        f"{100 * np.mean([s.effect for s in null]):+.1f}"
    )
    real = run(world, studies, points)
    print(f"{studies} studies with one design {100 * points:.0f} points better")
    print(f"  found and confirmed                              {share([study.true_winner for study in real])}")
    print(f"  mean trainings of a confirmation                 {np.mean([study.trainings for study in real]):.1f}")


if __name__ == "__main__":
    main()
