"""How noisy this study's runs are, what a confirmation would find, and for how many trainings.

Noise is taken from the study's own trials: plain SFT is trained a few times with other seeds when a search starts, and
the best trials say how far a lead depends on the problems. Before there are any, it is assumed, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...evaluation.statistics.power import LIKELY, Chance, Noise, chance, cheapest
from ...evaluation.statistics.settings import FinalsSettings
from ...evaluation.statistics.standing import Line
from ...spaces.identity import derive_seed
from ..store.history import TrialRecord, best, plain_sft
from ..study.config import StudyConfig
from ..study.parts import ConfirmationSettings
from .race import problem_scores

LEADS = (0.02, 0.05, 0.10)
"""What every plan says the chances of."""
ASSUMED_RUN = 0.03
"""Standard deviation between runs of one design while none was measured; later it counts as one run more."""
ASSUMED_CELL = 0.16
"""Variance of one problem's score in one run beyond its difficulty, while none was measured."""


@dataclass(frozen=True)
class Plan:
    """A confirmation before it is paid for."""

    line: Line
    settings: FinalsSettings
    noise: Noise
    asked: float | None
    """Probability that was asked for."""
    seed: int

    @property
    def looked_for(self) -> Chance:
        """What becomes of the lead that is looked for."""
        return _chance(self, self.settings.detect)

    @property
    def cost(self) -> float:
        """Trainings of the search's length to expect where there is the lead that is looked for, evaluation aside."""
        return self.looked_for.cost(self.settings.longer)

    @property
    def most(self) -> float:
        """Trainings of the search's length where every candidate gets all its seeds."""
        settings, line = self.settings, self.line
        finalists = min(line.candidates, 2 + (line.published is not None))
        longer = 0.0 if settings.longer is None else settings.longer * finalists * settings.longer_seeds
        return line.candidates * settings.seeds + longer

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        leads = (*LEADS, self.settings.detect)
        found = [
            {**asdict(each), "cost": each.cost(self.settings.longer)} for each in (_chance(self, x) for x in leads)
        ]
        return {
            "settings": self.settings.model_dump(mode="json"),
            "noise": asdict(self.noise),
            "chances": found,
            "most": self.most,
        }

    def lines(self, seconds_each: float | None, workers: int = 1) -> Iterator[str]:
        """In words: the noise, what would be found, for how long."""
        noise, points = self.noise, 100 * self.noise.run
        runs = f"measured on {round(noise.freedom) + 1} runs of plain SFT" if noise.freedom else "assumed, not measured"
        yield f"noise      two runs of one design differ by a standard deviation of {points:.1f} points ({runs})"
        price = partial(_price, longer=self.settings.longer, seconds_each=seconds_each, workers=workers)
        known = (_chance(self, lead) for lead in LEADS)
        parts = [f"of {100 * each.lead:g} points in {each.found:.0%} of cases{price(each)}" for each in known]
        yield f"finds      a lead {', '.join(parts)}"
        found = self.looked_for
        yield (
            f"looks for  a lead of {100 * found.lead:.1f} points: found in {found.found:.0%} of cases{price(found)}, "
            f"at most {self.settings.seeds} seeds a candidate"
        )

    @property
    def shortfall(self) -> str | None:
        """What to do where no race finds the lead that was asked for often enough; None where one does."""
        found = self.looked_for
        if self.asked is None or found.found >= self.asked - 0.02:
            return None
        return (
            f"a lead of {100 * found.lead:.1f} points is found in {found.found:.0%} of cases, not in the "
            f"{self.asked:.0%} asked for, no race of {self.settings.seeds} seeds does better; ask for a larger lead "
            "(`confirmation.detect`), keep more problems (`evaluation.report_problems`), or allow more seeds "
            "(`confirmation.seeds`)"
        )


@lru_cache(maxsize=256)
def _chance(plan: Plan, lead: float) -> Chance:
    return chance(lead, plan.noise, plan.settings, plan.line, np.random.default_rng(plan.seed))


def _price(each: Chance, longer: float | None, seconds_each: float | None, workers: int) -> str:
    cost = each.cost(longer)
    if seconds_each is None:
        return f" ({cost:.0f} trainings)"
    hours = cost * seconds_each / 3600 / workers
    spoken = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return f" ({cost:.0f} trainings, {spoken})"


def planned(config: StudyConfig, records: Sequence[TrialRecord], line: Line) -> Plan:
    """The cheapest race of the candidates of `line` that finds what the study asks for."""
    noise = _rounded(study_noise(config, records))
    return _planned(line, noise, config.confirmation, derive_seed("plan", config.study))


@lru_cache(maxsize=32)
def _planned(line: Line, noise: Noise, asked: ConfirmationSettings, seed: int) -> Plan:
    base = FinalsSettings(longer=asked.longer, longer_seeds=asked.longer_seeds)
    generator = np.random.default_rng(seed)
    settings = cheapest(
        line, noise, generator, detect=asked.detect, power=asked.power, most_seeds=asked.seeds, base=base
    )
    return Plan(line, settings, noise, asked.power or (LIKELY if asked.detect else None), seed)


def _rounded(noise: Noise) -> Noise:
    """To a tenth of a point: a plan is made once for what cannot be told apart."""
    return Noise(round(noise.run, 3), round(noise.cell, 3), round(noise.problem, 3), noise.freedom)


def study_noise(config: StudyConfig, records: Sequence[TrialRecord]) -> Noise:
    """Why runs of this study differ, for as many problems as its confirmation has."""
    problems = max(2, config.evaluation.report_problems)
    table = _repeated(records)
    if table is None:
        return Noise(ASSUMED_RUN, float(np.sqrt(ASSUMED_CELL / problems)), 0.0, 0.0)
    found, runs = table.shape
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    cell = float((rest**2).sum() / ((found - 1) * (runs - 1)))
    between = max(0.0, float(table.mean(axis=0).var(ddof=1)) - cell / found)
    run = ((runs - 1) * between + ASSUMED_RUN**2) / runs
    return Noise(float(np.sqrt(run)), float(np.sqrt(cell / problems)), _lasting(records, cell, problems), runs - 1.0)


def _repeated(records: Sequence[TrialRecord]) -> NDArray[np.float64] | None:
    """(P, runs) scores of plain SFT under several seeds; None where it was trained once."""
    again = [record for record in records if record.repeat is not None and record.state == "complete"]
    if not again:
        return None
    first = [each for each in records if each.baseline == "sft" and each.training == again[0].training]
    runs = [each for each in (*first[:1], *again) if (each.folder / "items.jsonl").is_file()]
    columns = [problem_scores(each.folder / "items.jsonl") for each in runs]
    shared = sorted(set.intersection(*map(set, columns))) if len(columns) > 1 else []
    return np.array([[column[name] for column in columns] for name in shared]) if len(shared) > 1 else None


def _lasting(records: Sequence[TrialRecord], cell: float, problems: int) -> float:
    """How far a lead depends on the choice of problems, from the best trial's over plain SFT."""
    top, sft = best(records), plain_sft(records)
    if top is None or sft is None or top.number == sft.number:
        return 0.0
    files = [each.folder / "items.jsonl" for each in (top, sft)]
    if not all(file.is_file() for file in files):
        return 0.0
    ours, theirs = map(problem_scores, files)
    leads = np.array([ours[name] - theirs[name] for name in ours.keys() & theirs.keys()])
    if len(leads) < 2:
        return 0.0
    return float(np.sqrt(max(0.0, float(leads.var(ddof=1)) - 2 * cell) / problems))
