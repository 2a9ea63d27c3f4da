"""The table of trained designs on which searches are replayed (`landscape.py` makes it, `replay.py` reads it)."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from landscape import core, share_of, solved
from numpy.typing import NDArray
from scipy.stats import spearmanr

from qtarget.search.study.config_file import parse_study
from qtarget.spaces.ranges import Range

Array = NDArray[np.float64]
Row = Mapping[str, Any]
RESAMPLES = 1000


class Table:
    """The designs, and where in the space each lies."""

    def __init__(self, path: Path, study: str) -> None:
        """`study`: the text of the file that the designs were trained by."""
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        self.rows: list[Row] = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        self.id = hashlib.sha256("".join(row["title"] for row in self.rows).encode()).hexdigest()[:12]
        self.content = core(study)
        self.space = parse_study(self.content).space
        self.inside = [index for index, row in enumerate(self.rows) if row["parameters"]]
        self.places = np.array([self.place(self.rows[index]["parameters"]) for index in self.inside])
        self.published = [index for index, row in enumerate(self.rows) if row["origin"] == "published"]

    def place(self, parameters: Mapping[str, Any]) -> Array:
        """(knobs,) shares of the ranges."""
        chooser = Shares(parameters)
        self.space.suggest(chooser)
        return np.array(chooser.shares)

    def score(self, index: int, name: str = "end") -> float:
        """0 for one that diverged."""
        return solved(self.rows[index], name)

    def rung_ranks(self, generator: np.random.Generator) -> dict[str, tuple[float, float, float]]:
        """By name of a score on the way: Spearman's ρ with the end, and its 95 % from resampled designs."""
        names = sorted({name for row in self.rows for name in row if name.startswith(("raw/", "decayed/"))})
        scores = {name: np.array([solved(row, name) for row in self.rows]) for name in (*names, "end")}
        draws = generator.integers(len(self.rows), size=(RESAMPLES, len(self.rows)))
        found = {}
        for name in names:
            pair = scores[name], scores["end"]
            drawn = [float(spearmanr(*(side[draw] for side in pair)).statistic) for draw in draws]
            low, high = np.percentile(drawn, [2.5, 97.5])
            found[name] = float(spearmanr(*pair).statistic), float(low), float(high)
        return found

    @property
    def best(self) -> int:
        return max(range(len(self.rows)), key=self.score)


@dataclass
class Shares:
    """Chooser that takes known parameters, and notes how far into each range they lie."""

    parameters: Mapping[str, Any]
    shares: list[float] = field(default_factory=list)

    def real(self, name: str, low: float, high: float, log: bool = False) -> float:
        value = float(self.parameters[name])
        self.shares.append(share_of(value, Range(low=low, high=high, log=log)))
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        return round(self.real(name, low, high))

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        self.shares.append(float(list(options).index(self.parameters[name])))
        return self.parameters[name]
