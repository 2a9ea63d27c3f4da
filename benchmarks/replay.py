"""Replays searches on a table of trained designs: which sampler and which pruner find the best for the same steps?

    OMP_NUM_THREADS=1 python benchmarks/replay.py benchmarks/data/landscape.jsonl.gz OUT.jsonl \\
        [--arms random/none tpe/asha ...] [--replays 100] [--trials 64]
    python benchmarks/replay.py benchmarks/data/landscape.jsonl.gz OUT.jsonl --table

`--study` is the file by which another table's designs were trained; default: the quickstart's.

Nothing is trained. Queue, samplers, pruners and rungs are a study's own, over a storage in memory; a trial gets the
scores that its design has in the table (`landscape.py`). A replay is a study of another seed: its published baselines
come first, then what the sampler draws, until the steps of `--trials` whole trials are spent. A line of OUT a replay;
replays that are there already are left out, those of another table too.

A drawn point is moved to the nearest design of the table that this replay has not had yet, each knob measured in shares
of its range, and the sampler is told that design: so every score belongs to the parameters it is told with, no number
comes from a model of the table, and a design costs its steps once, as in a study, where a repetition is credited. What
is between the designs is not there: a sampler that would close in on an optimum does so no finer than the table.

Regret, in points: the best score of the table minus that of the best trial that ended, on the search problems; and the
same two designs on problems that no search has seen, where the table's best may be the worse of the two. Steps of looks
that are undone count, and a replay that pauses trials gets a budget of the same steps as the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from replay_samplers import SAMPLERS, Drawing, Sampler
from replay_table import Table

from qtarget.evaluation.tiny_world.study import study_text
from qtarget.search.loop.plan import first_slots, later_slot
from qtarget.search.store.patience import Patience
from qtarget.search.store.queue import Claim, Queue, Verdict
from qtarget.search.store.sampling import Chooser
from qtarget.search.store.slots import Slot
from qtarget.search.store.storage import StudyStorage
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study
from qtarget.spaces.identity import derive_seed

BUDGETS = (16, 32, 64)
"""Where regrets are told, in whole trials' worth of steps."""
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"pruner": "none"},
    "median 1/2": {"pruner": "median", "rungs": ["1/2"]},
    "median": {"pruner": "median"},
    "third": {"pruner": "successive_halving"},
    "asha": {"pruner": "asha"},
    "asha decayed": {"pruner": "asha", "rung_decay": 0.25},
    "asha 1/9, 1/3": {"pruner": "asha", "rungs": ["1/9", "1/3"], "rung_decay": 0.25},
}
"""Search settings of each; the rest is as a study has it that says no more, so that rungs are at a third."""
RESAMPLES = 2000
HEADS = f"{'sampler/pruner':>24} replays      median [95 %]     mean  fresh  / random [95 %]"


class _Queue(Queue):
    """A study's queue with another sampler, or that very one."""

    make: Sampler

    def load(self, number: int | None = None) -> optuna.Study:
        study = super().load(number)
        if number is not None:
            study.sampler = self.make(study.sampler, derive_seed("replay", self._settings.seed, number) % 2**32)
        return study


@dataclass
class Replay:
    """One study on the table."""

    table: Table
    config: StudyConfig
    queue: Queue
    budget: int
    """Optimiser steps."""
    steps: int = 0
    """Optimiser steps spent."""
    rows: dict[int, int] = field(default_factory=dict)
    """Row of the table by trial."""
    reached: dict[int, int] = field(default_factory=dict)
    """Optimiser steps by trial."""
    ends: list[tuple[int, int]] = field(default_factory=list)
    """(steps spent by then, row) of each trial that ended."""

    @classmethod
    def of(cls, table: Table, arm: str, seed: int, trials: int) -> Replay:
        sampler, pruner = arm.split("/", 1)
        named, make = SAMPLERS[sampler]
        length, tuned = table.content["training"]["steps"], {"sampler": named, **PRUNERS[pruner]}
        search = {"seed": seed, "rivals": 0.0, "repeats": 0, **tuned}
        plain = {"baselines": []} if sampler.startswith("plain") else {}
        config = parse_study({**table.content, **plain, "search": {**search, "trials": trials}})
        storage = StudyStorage("sqlite://", optuna.storages.InMemoryStorage(), nullcontext, Patience())
        optuna.create_study(study_name=config.study, storage=storage.backend, direction="maximize")
        queue = _Queue(config, storage)
        if queue.halving is not None:  # the steps of looks are part of the same budget
            config = config.of_length(trials * length // queue.halving.whole)
            queue = _Queue(config, storage)
        queue.make, queue.more = make, lambda count: later_slot(config, (), count)
        queue.fill(first_slots(config), config.search.trials)
        return cls(table, config, queue, trials * length)

    def run(self) -> list[tuple[int, int]]:
        """(steps spent, row) of each trial that ended, in the order of time."""
        while True:
            while (claim := self.queue.claim()) is not None:
                self._train(claim)
            if self.queue.halving is not None or self.steps + self.config.training.steps > self.budget:
                self.queue.leave()
                return self.ends
            self.queue.put(lambda slots: [Slot()])

    def _train(self, claim: Claim) -> None:
        number, end = claim.number, self.config.training.steps
        row = self.rows[number] if number in self.rows else self._design(claim)
        passed, known = self.queue.passed(claim), self.queue.rungs(claim)
        for rung in self.config.search.rungs_of(end, self.config.evaluation.problems):
            if rung.step in passed or rung.step in known or rung.step < self.reached[number]:
                continue
            self._go(number, rung.step, rung.decay_steps)
            score = self.table.score(row, f"{'decayed' if rung.decay_steps else 'raw'}/{rung.step}")
            if self.queue.report(claim, rung.step, score):
                self.queue.finish(claim, Verdict(TrialState.PRUNED))
                return
            if self.queue.pauses(claim):
                self.queue.pause(claim, rung.step)
                return
        self._go(number, end)
        self.queue.finish(claim, Verdict(TrialState.COMPLETE, self.table.score(row)))
        self.ends.append((self.steps, row))

    def _go(self, number: int, until: int, looks: int = 0) -> None:
        self.steps += until - self.reached[number] + looks
        self.reached[number] = until

    def _design(self, claim: Claim) -> int:
        """A row for a new trial: its baseline's, or the free one that is nearest to what the sampler draws."""
        if "target" in claim.attributes:
            row = claim.number
            if claim.frozen.system_attrs.get("fixed_params"):
                self.table.space.suggest(Chooser(claim.trial))  # records them, as a study does
        else:
            row = self._nearest(claim)
        self.queue.note(claim, canonical=f"row {row}")  # wholly drawn
        self.rows[claim.number], self.reached[claim.number] = row, 0
        return row

    def _nearest(self, claim: Claim) -> int:
        drawing = Drawing(claim.trial)
        self.table.space.suggest(drawing)
        apart = ((self.table.places - self.table.place(drawing.parameters)) ** 2).sum(axis=1)
        taken = {*self.rows.values(), *self.table.published}
        order = (self.table.inside[index] for index in np.argsort(apart, kind="stable"))
        row = next((index for index in order if index not in taken), None)
        if row is None:
            raise SystemExit(f"a replay needs more designs than the table's {len(self.table.rows)}; lower --trials")
        storage = claim.trial.study._storage
        for name, value in self.table.rows[row]["parameters"].items():
            distribution = drawing.distributions[name]
            storage.set_trial_param(claim.trial._trial_id, name, distribution.to_internal_repr(value), distribution)
        return row


def replay(table: Table, out: Path, arms: Sequence[str], count: int, trials: int) -> None:
    """Every replay that OUT lacks, seed by seed, so that all arms have seen the same number whenever it ends."""
    known = {(each["arm"], each["seed"], each["trials"]) for each in replays(out, table)}
    for seed in range(count):
        for arm in arms:
            if (arm, seed, trials) in known:
                continue
            ends = Replay.of(table, arm, seed, trials).run()
            line = {"table": table.id, "arm": arm, "seed": seed, "trials": trials, "ends": ends}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def replays(out: Path, table: Table) -> list[dict[str, Any]]:
    lines = out.read_text("utf-8").splitlines() if out.exists() else []
    return [each for each in map(json.loads, lines) if each["table"] == table.id]


def regrets(table: Table, ends: Sequence[tuple[int, int]], steps: int) -> tuple[float, float]:
    """Points lost within so many steps: on the search problems, and on those that no search has seen."""
    ended = [row for spent, row in ends if spent <= steps]
    found, best = max(ended, key=table.score), table.best
    lost = [table.score(best, name) - table.score(found, name) for name in ("end", "fresh")]
    return 100 * lost[0], 100 * lost[1]


def speaking(found: Sequence[Mapping[str, Any]], arm: str, budget: int) -> list[Mapping[str, Any]]:
    """The replays of an arm that say what a budget finds: of just that budget where trials pause, else the longest."""
    lengths = {each["trials"] for each in found if each["arm"] == arm}
    length = budget if "asha" in arm else max(lengths, default=0)
    return [each for each in found if each["arm"] == arm and each["trials"] == length >= budget]


def show(table: Table, out: Path, per_trial: int) -> None:
    """A line per arm and budget."""
    found, generator = replays(out, table), np.random.default_rng(0)
    print(f"{len(table.rows)} designs, best {100 * table.score(table.best):.1f}, table {table.id}")
    for name, (rho, low, high) in table.rung_ranks(generator).items():
        print(f"{name:>24} ranks as the end, Spearman's rho {rho:.2f} [{low:.2f}, {high:.2f}]")
    longest = max((each["trials"] for each in found), default=0)
    for budget in sorted({each for each in BUDGETS if each <= longest} | {each["trials"] for each in found}):
        print(f"\n{budget} trials' worth of steps\n{HEADS}")
        lost = {
            arm: {
                each["seed"]: regrets(table, each["ends"], budget * per_trial) for each in speaking(found, arm, budget)
            }
            for arm in sorted({each["arm"] for each in found})
        }
        for arm, values in lost.items():
            if values:
                print(f"{arm:>24} {line(values, lost.get('random/none', {}), generator)}")


def line(values: Mapping[int, tuple[float, float]], base: Mapping[int, tuple[float, float]], generator: Any) -> str:
    """Median and mean regret, the mean on fresh problems; the ratio of medians to random search's, if that lost any.

    Intervals of 95 % by resampling replays, those of one seed together.
    """
    seeds = sorted(values.keys() & base.keys()) if base else sorted(values)
    own, others = (np.array([each[seed] for seed in seeds]) for each in (values, base or values))
    draws = generator.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    medians, theirs = (np.median(each[:, 0][draws], axis=1) for each in (own, others))
    low, high = np.percentile(medians, [2.5, 97.5])
    said = f"{np.median(own[:, 0]):.1f} [{low:.1f}, {high:.1f}]"
    told = f"{len(seeds):7} {said:>20} {own[:, 0].mean():6.1f} {own[:, 1].mean():6.1f}"
    if not np.median(others[:, 0]):
        return told
    least, most = np.percentile(medians / np.maximum(theirs, 1e-9), [2.5, 97.5])
    ratio = np.median(own[:, 0]) / float(np.median(others[:, 0]))
    return f"{told}  {ratio:.2f} [{least:.2f}, {most:.2f}]"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landscape", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--arms", nargs="+", default=["random/none", "tpe/none", "tpe/median", "tpe/asha"])
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--trials", type=int, default=max(BUDGETS))
    parser.add_argument("--table", action="store_true", help="what OUT holds so far")
    given = parser.parse_args(argv)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = Table(given.landscape, study_text(0) if given.study is None else given.study.read_text("utf-8"))
    if given.table:
        show(table, given.out, table.content["training"]["steps"])
    else:
        replay(table, given.out, given.arms, given.replays, given.trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
