"""How often does a confirmation announce a winner that is none, how often does it find one, and for how many trainings?

    python benchmarks/races.py [--studies 400] [--seeds 24] [--patience 1.95] [--part null|found|length|tables] ...

Simulated studies of four candidates: plain SFT, the best published objective and two designs. Runs differ by a standard
deviation of 1.5, 3 or 6 points, or unequally (10 in one or more candidates, half a point in the others), and by what
1,024 problems add. `race` is that of `evaluation/statistics/finals.py`, which looks for what the product does where
nothing is asked: 1.25 standard deviations between runs, or `--detect`. `asked` is the one that the product chooses for
`confirmation: {detect: 0.04, power: 0.8}` at three points. `before` is three (six) seeds of everything and one test at
the end (`fixed_confirmation.py`). Trainings are counted in those of the search's length and for question 1 alone; what
the other questions take stands beside it. Tables are Markdown.
"""

import argparse
from collections.abc import Callable, Sequence

import fixed_confirmation
import numpy as np
from numpy.typing import NDArray

from qtarget.evaluation.statistics.confirmation import Outcome, conclude
from qtarget.evaluation.statistics.evidence import Simulated, Tables, World
from qtarget.evaluation.statistics.finals import Finals
from qtarget.evaluation.statistics.power import WORTHWHILE, Noise, cheapest
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


def asked(noise: float) -> FinalsSettings:
    """The race that is planned for who wants four points found in four of five studies."""
    generator = np.random.default_rng(derive_seed("asked", noise))
    return cheapest(LINE, Noise(noise, CELL, freedom=2), generator, detect=0.04, power=0.8)


def raced(world: World, rules: FinalsSettings, studies: int, name: str) -> tuple[Finals, float]:
    """(races that are over, mean trainings of question 1)."""
    generator = np.random.default_rng(derive_seed("races", name))
    races = Finals(LINE, rules, Simulated(world, rules.seeds, studies, generator), studies)
    while (chosen := np.where(races.stage == RACING, races.next(), -1)).max() >= 0:
        races.take(chosen)
    first = float(races.trainings.mean())
    races.run()
    return races, first


def share(flags: NDArray[np.bool_]) -> str:
    """A share with its 95 % Wilson interval."""
    low, high = wilson(float(flags.sum()), len(flags))
    return f"{100 * flags.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def row(*cells: object) -> None:
    """One line of a table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


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
    tables = (tables_of(world, seeds, 256, generator) for _ in range(studies))
    return [
        fixed_confirmation.better(sft, {str(i): each for i, each in enumerate(others, 1)}) for sft, *others in tables
    ]


def null(arguments: argparse.Namespace) -> None:
    """Equal candidates: every claim is wrong."""
    print(f"\nAll equal, {arguments.studies} studies: any wrong claim, mean trainings of question 1\n")
    row("standard deviation between runs", "procedure", "any wrong", "heavy tails (t, 3)", "trainings")
    for name, noise in NOISES.items():
        cells = {"race": settings(noise, arguments)} | ({"asked": asked(noise[0])} if name == "3" else {})
        for title, rules in cells.items():
            even, tailed = (World((0.0,) * 4, noise, CELL, tail=tail) for tail in (None, 3.0))
            races, first = raced(even, rules, arguments.studies, f"null {name}")
            heavy, _ = raced(tailed, rules, arguments.studies, f"tails {name}")
            row(name, title, share(wrong(races)), share(wrong(heavy)), f"{first:.1f}")
        for seeds in arguments.before:
            claims = np.array([bool(each) for each in fixed(even, seeds, arguments.studies, f"null {name}")])
            row(name, f"before, {seeds} seeds", share(claims), "", 4 * seeds)


def found(arguments: argparse.Namespace) -> None:
    """One design is truly better."""
    print(f"\nOne design ahead, runs differ by 3 points, {arguments.studies} studies: found better than plain SFT, and")
    print("than the published objective too; mean trainings of question 1, of all questions, and longer ones\n")
    row("lead", "procedure", "found", "both", "trainings", "all", "longer")
    even = NOISES["3"]
    usual, dearer = settings(even, arguments), asked(even[0])
    for lead in (0.02, 0.04, 0.05, 0.08, 0.10):
        scores = (0.0, 0.0, lead, 0.0)
        cells = {
            "lead": ("race", World(scores, even, CELL), usual),
            "shared": ("race, shared seeds (r = 0.5)", World(scores, even, CELL, shared=0.5), usual),
            "averaged": ("race, noise 2 instead of 3", World(scores, (0.02,) * 4, CELL), settings((0.02,), arguments)),
            "asked": (f"asked ({dearer.seeds} seeds, patience {dearer.patience:g})", World(scores, even, CELL), dearer),
        }
        for name, (title, world, rules) in cells.items():
            races, first = raced(world, rules, arguments.studies, f"{name} {lead}")
            ours = races.better[:, 2] & (races.winner == 2)
            both = ours & (races.against_published == CLAIMED)
            means = (first, races.trainings.mean(), races.long_trainings.mean())
            row(f"{100 * lead:g}", title, share(ours), share(both), *(f"{each:.1f}" for each in means))
        for seeds in arguments.before:
            claims = np.array(
                ["2" in each for each in fixed(World(scores, even, CELL), seeds, arguments.studies, f"lead {lead}")]
            )
            row(f"{100 * lead:g}", f"before, {seeds} seeds", share(claims), "", 4 * seeds, 4 * seeds, "")


def rivals(arguments: argparse.Namespace) -> None:
    """A design is truly better than plain SFT, and the published objective better still."""
    print(f"\nA design and the published objective ahead, runs differ by 3 points, {arguments.studies} studies\n")
    row("lead of the design", "of the published", "design wins", "published wins", "all trainings", "longer")
    for ours, theirs in ((0.04, 0.08), (0.08, 0.10), (0.10, 0.30), (0.10, 0.08)):
        world = World((0.0, 0.0, ours, theirs), NOISES["3"], CELL)
        races, _ = raced(world, settings(world.noise, arguments), arguments.studies, f"rivals {ours} {theirs}")
        won = (share(races.winner == index) for index in (2, LINE.published))
        means = (f"{races.trainings.mean():.1f}", f"{races.long_trainings.mean():.1f}")
        row(f"{100 * ours:g}", f"{100 * theirs:g}", *won, *means)


def length(arguments: argparse.Namespace) -> None:
    """A lead of 20 points that changes when training takes twice as long."""
    print(f"\nA lead of 20 points at the search's length, {arguments.studies} studies: said of it at twice the steps")
    for longer in (0.0, 0.05, 0.20, 0.40):
        world = World((0.0, 0.0, 0.2, 0.0), NOISES["3"], CELL, longer=(0.0, 0.0, longer, 0.0))
        races, _ = raced(world, settings(world.noise, arguments), arguments.studies, f"length {longer}")
        words = {"grows": GROWS, "holds": HOLDS, "shrinks": SHRINKS}
        said = ", ".join(f"{name} {(races.trend[:, 0] == code).mean():.0%}" for name, code in words.items())
        print(f"  then {100 * longer:3.0f} points: {said}; {races.long_trainings.mean():.1f} longer trainings")


def tables(arguments: argparse.Namespace) -> None:
    """The same race on tables of scores, problem by problem, as a real study has them."""
    print(f"\nOn tables of 256 problems, runs differ by 3 points, {arguments.studies} studies")
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
    parser.add_argument("--part", choices=["null", "found", "rivals", "length", "tables"], default=None)
    parser.add_argument("--before", type=int, nargs="*", default=[3, 6], help="seeds of the procedure before")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "null": null, "found": found, "rivals": rivals, "length": length, "tables": tables}  # fmt: skip
    for name, part in parts.items():
        if arguments.part in (None, name):
            part(arguments)


if __name__ == "__main__":
    main()
