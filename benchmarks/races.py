"""How often does a confirmation announce a winner that is none, how often does it find one, and for how many trainings?

    python benchmarks/races.py [--studies 400] [--seeds 24] [--patience 1.95] [--part null|found|length|tables] ...

Simulated studies of four candidates: plain SFT, the best published objective and two designs. Runs differ by a standard
deviation of 1.5, 3 or 6 points, or unequally (10 in one or more candidates, half a point in the others), and by what
1,024 problems add. `now` is the race of `evaluation/statistics/finals.py`; `before` three seeds of everything and one
test at the end (`fixed_confirmation.py`), `before, 6` the same with six. A lead is looked for as the product does where
nothing is asked: 1.25 standard deviations between runs, or four points (`--detect`). Trainings are counted in those of
the search's length and for question 1 alone; what the other questions take stands beside it.
"""

import argparse
from collections.abc import Callable, Sequence

import fixed_confirmation as before
import numpy as np
from numpy.typing import NDArray

from qtarget.evaluation.statistics.confirmation import Outcome, conclude
from qtarget.evaluation.statistics.evidence import Simulated, Tables, World
from qtarget.evaluation.statistics.finals import Finals
from qtarget.evaluation.statistics.power import WORTHWHILE
from qtarget.evaluation.statistics.settings import FinalsSettings
from qtarget.evaluation.statistics.standing import CLAIMED, GROWS, HOLDS, RACING, SHRINKS, Line
from qtarget.evaluation.statistics.stats import wilson
from qtarget.spaces.identity import derive_seed

LINE = Line(4, published=3)
CELL = 0.0125
"""Standard deviation that 1,024 problems add to a run's score: 0.4 for one problem beyond its difficulty."""
NOISES = {
    "1.5": (0.015,) * 4,
    "3": (0.03,) * 4,
    "6": (0.06,) * 4,
    "SFT 10, others 0.5": (0.10, 0.005, 0.005, 0.005),
    "one design 10, others 0.5": (0.005, 0.10, 0.005, 0.005),
    "SFT 0.5, others 10": (0.005, 0.10, 0.10, 0.10),
}


def settings(noise: Sequence[float], arguments: argparse.Namespace) -> FinalsSettings:
    """A race as it is planned after plain SFT was trained three times in the search."""
    known = float(np.hypot(noise[0], CELL))
    detect = arguments.detect or min(0.5, WORTHWHILE * known)
    return FinalsSettings(
        seeds=arguments.seeds, patience=arguments.patience, detect=detect, noise=known, noise_freedom=2
    )


def raced(world: World, arguments: argparse.Namespace, name: str, **changes: object) -> tuple[Finals, float]:
    """(races that are over, mean trainings of question 1)."""
    generator = np.random.default_rng(derive_seed("races", name))
    rules = settings(world.noise, arguments).model_copy(update=changes)
    races = Finals(LINE, rules, Simulated(world, rules.seeds, arguments.studies, generator), arguments.studies)
    while (chosen := np.where(races.stage == RACING, races.next(), -1)).max() >= 0:
        races.take(chosen)
    first = float(races.trainings.mean())
    races.run()
    return races, first


def share(flags: NDArray[np.bool_]) -> str:
    """A share with its 95 % Wilson interval."""
    low, high = wilson(float(flags.sum()), len(flags))
    return f"{flags.mean():6.1%} [{low:.1%}, {high:.1%}]"


def wrong(races: Finals) -> NDArray[np.bool_]:
    """(S,) whether anything was claimed in studies of equal candidates whose leads do not change."""
    length = np.isin(races.trend, (GROWS, SHRINKS)).any(axis=1)
    return np.asarray(races.better.any(axis=1) | (races.against_published == CLAIMED) | length)


def tables_of(world: World, seeds: int, problems: int, generator: np.random.Generator) -> list[NDArray[np.float64]]:
    """Scores (P, seeds) of each candidate, of problems that differ in difficulty."""
    base = 0.4 + 0.25 * generator.normal(size=(problems, 1)).clip(-1.4, 1.4)
    found = []
    for score, noise in zip(world.scores, world.noise, strict=True):
        runs = score + noise * generator.normal(size=(1, seeds))
        found.append(base + runs + CELL * np.sqrt(problems) * generator.normal(size=(problems, seeds)))
    return found


def fixed(world: World, seeds: int, studies: int, name: str) -> list[set[str]]:
    """What the procedure before claims to be better, in each study."""
    generator = np.random.default_rng(derive_seed("fixed", name))
    found = []
    for _ in range(studies):
        sft, *others = tables_of(world, seeds, 256, generator)
        verdict = before.confirm(sft, {str(i): table for i, table in enumerate(others, 1)}, generator, resamples=10)
        found.append({each.title for each in verdict.comparisons if each.outcome is before.Outcome.BETTER})
    return found


def null(arguments: argparse.Namespace) -> None:
    """Equal candidates: every claim is wrong."""
    print(f"All equal, {arguments.studies} studies: any wrong claim, mean trainings of question 1")
    for name, noise in NOISES.items():
        world = World((0.0,) * 4, noise, CELL)
        races, first = raced(world, arguments, f"null {name}")
        tailed, _ = raced(World((0.0,) * 4, noise, CELL, tail=3.0), arguments, f"tails {name}")
        print(f"  {name:26} now    {share(wrong(races))}  {first:5.1f}    heavy tails {share(wrong(tailed))}")
        for seeds in arguments.before:
            claims = np.array([bool(each) for each in fixed(world, seeds, arguments.studies, f"null {name}")])
            print(f"  {'':26} before, {seeds} seeds {share(claims)}  {4 * seeds:5.1f}")


def found(arguments: argparse.Namespace) -> None:
    """One design is truly better."""
    print(
        f"One design ahead, runs differ by 3 points, {arguments.studies} studies: found better than plain SFT (and than"
    )
    print("the published objective), mean trainings of question 1, of all questions, and longer ones")
    for lead in (0.02, 0.04, 0.05, 0.08, 0.10):
        world = World((0.0, 0.0, lead, 0.0), NOISES["3"], CELL)
        cells: dict[str, Callable[[], tuple[Finals, float]]] = {
            "now": lambda world=world, lead=lead: raced(world, arguments, f"lead {lead}"),
            "  shared seeds, r = 0.5": lambda world=world, lead=lead: raced(
                World(world.scores, world.noise, CELL, shared=0.5), arguments, f"shared {lead}"),
            "  noise 2 instead of 3": lambda world=world, lead=lead: raced(
                World(world.scores, (0.02,) * 4, CELL), arguments, f"averaged {lead}"),
        }  # fmt: skip
        for name, cell in cells.items():
            races, first = cell()
            ours = races.better[:, 2] & (races.winner == 2)
            both = ours & (races.against_published == CLAIMED)
            counts = f"{first:5.1f} {races.trainings.mean():5.1f} {races.long_trainings.mean():4.1f}"
            print(f"  {100 * lead:4.0f} points  {name:24} {share(ours)}  {share(both)}  {counts}")
        for seeds in arguments.before:
            claims = np.array(["2" in each for each in fixed(world, seeds, arguments.studies, f"lead {lead}")])
            print(f"  {'':13}{f'before, {seeds} seeds':24} {share(claims)}  {'':23}{4 * seeds:5.1f}")


def length(arguments: argparse.Namespace) -> None:
    """A lead of 20 points that changes when training takes twice as long."""
    print(f"A lead of 20 points at the search's length, {arguments.studies} studies: said of it at twice the steps")
    for longer in (0.0, 0.05, 0.20, 0.40):
        world = World((0.0, 0.0, 0.2, 0.0), NOISES["3"], CELL, longer=(0.0, 0.0, longer, 0.0))
        races, _ = raced(world, arguments, f"length {longer}")
        words = {"grows": GROWS, "holds": HOLDS, "shrinks": SHRINKS}
        said = ", ".join(f"{name} {(races.trend[:, 0] == code).mean():.0%}" for name, code in words.items())
        print(f"  then {100 * longer:3.0f} points: {said}; {races.long_trainings.mean():.1f} longer trainings")


def tables(arguments: argparse.Namespace) -> None:
    """The same race on tables of scores, problem by problem, as a real study has them."""
    print(f"On tables of 256 problems, runs differ by 3 points, {arguments.studies} studies")
    for lead in (0.0, 0.08):
        world = World((0.0, 0.0, lead, 0.0), NOISES["3"], CELL)
        generator = np.random.default_rng(derive_seed("tables", lead))
        claims, trainings = [], []
        for _ in range(arguments.studies):
            short = tables_of(world, arguments.seeds, 256, generator)
            evidence = Tables([*short, *tables_of(world, 3, 256, generator)])
            race = Finals(LINE, settings(world.noise, arguments), evidence)
            race.run()
            verdict = conclude(race, evidence, ["sft", "first", "second", "published"], generator)
            claims.append({each.title for each in verdict.comparisons if each.outcome is Outcome.BETTER})
            trainings.append(verdict.trainings)
        what = np.array([bool(each) if lead == 0 else "second" in each for each in claims])
        print(
            f"  {100 * lead:4.0f} points  {'any' if lead == 0 else 'it'} {share(what)}  {np.mean(trainings):.1f} runs"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=FinalsSettings().seeds)
    parser.add_argument("--patience", type=float, default=FinalsSettings().patience)
    parser.add_argument("--detect", type=float, default=None)
    parser.add_argument("--part", choices=["null", "found", "length", "tables"], default=None)
    parser.add_argument("--before", type=int, nargs="*", default=[3, 6], help="seeds of the procedure before")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "null": null, "found": found, "length": length, "tables": tables}  # fmt: skip
    for name, part in parts.items():
        if arguments.part in (None, name):
            part(arguments)


if __name__ == "__main__":
    main()
