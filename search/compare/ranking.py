"""`qtarget compare`: which designs win where, and which hold across pairs of model and data.

Designs are matched between studies by the canonical id of their target, each at its best learning rate of that study.
Those that all studies have tried, published baselines above all, are ranked in each. Intervals resample problems, the
same ones for all designs of a study. A design holds across pairs when it is better than plain SFT in every one of them:
its largest p-value over the pairs counts (an intersection-union test), corrected for the number of designs (Holm 1979).
Each score comes from one training seed, whose noise no interval here contains; a confirmation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.statistics.stats import bootstrap_interval, holm, sign_flip_test
from ...spaces import presets
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id, derive_seed
from .pairs import Array, Pair, read_pairs

ERROR_RATE = 0.05
RESAMPLES = 10_000
BETTER, WORSE = "better than SFT in every pair", "worse in every pair"
MIXED, OPEN = "better in some pairs, worse in others", "not settled"


@dataclass(frozen=True)
class Place:
    """A design in one pair."""

    study: str
    trial: int
    score: float
    rank: float
    """Among the designs that all pairs share; 1 is best, equal scores share the mean."""
    low: float
    high: float
    """95 % interval of the rank."""
    effect: float | None
    """Score above plain SFT; None where SFT is not shared."""
    effect_low: float | None
    effect_high: float | None
    """95 % interval of the effect."""


@dataclass(frozen=True)
class Row:
    """A design in all pairs."""

    title: str
    design: str
    """Canonical id of its target."""
    places: tuple[Place, ...]
    mean_rank: float
    low: float
    high: float
    """95 % interval of the mean rank over these very pairs."""
    outcome: str | None
    """Against SFT across pairs; None for SFT itself, and where SFT is not shared."""


@dataclass(frozen=True)
class Winner:
    """The best design of one pair, whether or not others have tried it."""

    study: str
    trial: int
    title: str
    score: float
    gain: float
    """Above the best shared design; the best of many is partly luck."""
    low: float
    high: float
    """95 % interval of the gain."""
    shared: bool
    confirmed: str | None
    """What the study's confirmation says of its winner."""


@dataclass(frozen=True)
class Comparison:
    """What several studies say together."""

    studies: tuple[str, ...]
    rows: tuple[Row, ...]
    """Shared designs, best mean rank first."""
    winners: tuple[Winner, ...]
    notes: tuple[str, ...] = ()
    """Which study files have changed since they were searched; compared is what was searched."""

    @property
    def short_names(self) -> list[str]:
        return short_names(self.studies)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def short_names(studies: Sequence[str]) -> list[str]:
    """Names of studies without the parts before a dot that all begin with: `worlds.a, worlds.b` is `a, b`."""
    parts = [name.split(".") for name in studies]
    same = 0
    while all(len(each) > same + 1 and each[same] == parts[0][same] for each in parts):
        same += 1
    return [".".join(each[same:]) for each in parts]


def compare_studies(paths: Sequence[Path]) -> Comparison:
    """Compare the studies of YAML files, folders and campaign files.

    Raises UserError when there are fewer than two, one was not run, or they share no design.
    """
    pairs = read_pairs(paths)
    if len(pairs) < 2:
        raise UserError(f"a comparison needs at least 2 studies, but got {len(pairs)}; name more of them")
    return compare(pairs)


def compare(pairs: Sequence[Pair]) -> Comparison:
    """Rank the designs that all `pairs` share, and say how the best of each does against them."""
    shared = [name for name in pairs[0].designs if all(name in pair.designs for pair in pairs)]
    if not shared:
        raise UserError(
            "compared studies must share at least one design, but have none in common; give them common `baselines`"
        )
    names = tuple(pair.study for pair in pairs)
    drawn = [_drawn_ranks(pair, shared, _generator(pair, "ranks")) for pair in pairs]
    effects = [[_effect(pair, name, _generator(pair, name)) for pair in pairs] for name in shared]
    outcomes, titles = _outcomes(pairs, shared), _titles(pairs, shared)
    rows = []
    for index, name in enumerate(shared):
        places = tuple(
            _place(pair, name, _ranks(_means(pair, shared))[index], ranks[:, index], effect)
            for pair, ranks, effect in zip(pairs, drawn, effects[index], strict=True)
        )
        low, high = _interval(np.mean([ranks[:, index] for ranks in drawn], axis=0))
        mean_rank = float(np.mean([place.rank for place in places]))
        rows.append(Row(titles[name], name, places, mean_rank, low, high, outcomes.get(name)))
    winners = tuple(_winner(pair, shared, _generator(pair, "winner")) for pair in pairs)
    notes = tuple(f"{pair.study}: {pair.note}" for pair in pairs if pair.note is not None)
    return Comparison(names, tuple(sorted(rows, key=lambda row: row.mean_rank)), winners, notes)


def _generator(pair: Pair, purpose: str) -> np.random.Generator:
    """What a pair draws for one purpose does not depend on which other pairs it is compared with."""
    return np.random.default_rng(derive_seed("compare", pair.study, purpose))


def _titles(pairs: Sequence[Pair], shared: Sequence[str]) -> dict[str, str]:
    """The preset's name, or the design in one line; both where presets of one name differ in their knobs."""
    records = {name: [pair.designs[name] for pair in pairs] for name in shared}
    presets = {name: next((each.baseline for each in found if each.baseline), None) for name, found in records.items()}
    lines = {name: found[0].target.title() for name, found in records.items() if found[0].target is not None}
    several = {preset for preset in presets.values() if list(presets.values()).count(preset) > 1}
    return {
        name: lines[name] if preset is None else f"{preset}: {lines[name]}" if preset in several else preset
        for name, preset in presets.items()
    }


def _means(pair: Pair, names: Sequence[str]) -> Array:
    return np.array([pair.scores[name].mean() for name in names])


def _drawn_ranks(pair: Pair, names: Sequence[str], generator: np.random.Generator) -> Array:
    """Ranks (resamples, designs) on problems drawn with replacement, the same ones for all designs."""
    table = np.array([pair.scores[name] for name in names])  # (designs, problems)
    count = table.shape[1]
    picks = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (resamples, problems)
    return _ranks(picks @ table.T / count)


def _ranks(means: Array) -> Array:
    """Ranks along the last axis, 1 the largest, equal ones sharing their mean (to rounding)."""
    rounded = np.round(means, 9)
    above = (rounded[..., None, :] > rounded[..., :, None]).sum(-1)
    equal = (rounded[..., None, :] == rounded[..., :, None]).sum(-1)
    ranks: Array = above + (equal + 1) / 2
    return ranks


def _interval(drawn: Array) -> tuple[float, float]:
    low, high = np.quantile(drawn, [ERROR_RATE / 2, 1 - ERROR_RATE / 2])
    return float(low), float(high)


def _differences(pair: Pair, name: str) -> Array | None:
    """Scores above plain SFT (problems,); None when SFT is not there."""
    sft = pair.scores.get(canonical_id(presets.get("sft")))
    return None if sft is None else pair.scores[name] - sft


def _effect(
    pair: Pair, name: str, generator: np.random.Generator
) -> tuple[float, float, float] | tuple[None, None, None]:
    differences = _differences(pair, name)
    if differences is None:
        return None, None, None
    low, high = bootstrap_interval(differences, generator, confidence=1 - ERROR_RATE)
    return float(differences.mean()), low, high


def _place(pair: Pair, name: str, rank: float, drawn: Array, effect: tuple[Any, Any, Any]) -> Place:
    record = pair.designs[name]
    low, high = _interval(drawn)
    return Place(pair.study, record.number, float(pair.scores[name].mean()), float(rank), low, high, *effect)


def _outcomes(pairs: Sequence[Pair], shared: Sequence[str]) -> dict[str, str]:
    """What each shared design but SFT is against SFT across pairs; empty where SFT is not shared."""
    sft = canonical_id(presets.get("sft"))
    others = [name for name in shared if name != sft]
    if sft not in shared or not others:
        return {}
    better = np.array([[_p_better(pair.scores[name] - pair.scores[sft]) for pair in pairs] for name in others])
    worse = np.array([[_p_better(pair.scores[sft] - pair.scores[name]) for pair in pairs] for name in others])
    everywhere = np.array([holm(table.max(axis=1)) <= ERROR_RATE for table in (better, worse)])
    adjusted = [holm(table.ravel()).reshape(table.shape) for table in (better, worse)]
    somewhere = np.array([table.min(axis=1) <= ERROR_RATE for table in adjusted])
    return {name: _outcome(*everywhere[:, index], *somewhere[:, index]) for index, name in enumerate(others)}


def _outcome(all_better: bool, all_worse: bool, some_better: bool, some_worse: bool) -> str:
    if all_better:
        return BETTER
    if all_worse:
        return WORSE
    return MIXED if some_better and some_worse else OPEN


def _p_better(differences: Array) -> float:
    """One-sided p-value of a mean above 0, from the exact paired permutation test."""
    two_sided = sign_flip_test(differences)
    return two_sided / 2 if differences.mean() > 0 else 1 - two_sided / 2 if differences.mean() < 0 else 1.0


def _winner(pair: Pair, shared: Sequence[str], generator: np.random.Generator) -> Winner:
    name = pair.best()
    record, best_shared = pair.designs[name], shared[int(np.argmax(_means(pair, shared)))]
    gains = pair.scores[name] - pair.scores[best_shared]
    low, high = bootstrap_interval(gains, generator, confidence=1 - ERROR_RATE)
    title = record.baseline or record.title
    confirmed = None if pair.verdict is None else str(pair.verdict["outcome"])
    return Winner(
        pair.study, record.number, title, float(pair.scores[name].mean()), float(gains.mean()), low, high,
        name in shared, confirmed,
    )  # fmt: skip
