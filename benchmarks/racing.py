"""Replays racing on stored per-item scores: what it would have saved, and whether the winner stays the same.

    python benchmarks/racing.py SCORES.npz|STUDY_FOLDER [--replays 200] [--trials N] [--problems N] [--error-rate 0.1]
        [--margin 0.01] [--block 16] [--growth 1.5] [--reference trials|incumbent] [--in-order] [--tell-apart S]
        [--grid]

SCORES.npz holds `scores` (trials, problems) in [0, 1] and optionally `tokens` of the same shape. A study folder holds
one folder per trial with an items.jsonl; trials that lack problems others have are left out and counted. Each replay
shuffles problems and trials (with --in-order problems only), lets every trial race against the best of those that were
evaluated in full before it, and compares the winner with the winner of full evaluation. With --trials and --problems,
each replay uses so many of them, drawn anew: what a smaller study would have saved. With --grid a table over error
rates and margins is printed.

With --tell-apart S each trial draws its own order of problems, those first that tell designs apart: an item that the
trials in full have solved with the frequency r is drawn with a weight of √(r(1 − r)), at least S times the largest.
The evidence then weighs each difference by the inverse of its item's chance to be next, `drawn_evidence`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qtarget.evaluation.settings import RacingSettings
from qtarget.evaluation.statistics.racing import SHARES, evidence, looks, predictions
from qtarget.evaluation.statistics.stats import wilson
from qtarget.spaces.identity import derive_seed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Replays:
    """Outcome of many replays."""

    same: float
    """Share of replays with the same winner, or one with the same full score."""
    close: float
    """Share of replays whose winner's full score is within one point of the best."""
    close_interval: tuple[float, float]
    tokens: float
    """Mean share of tokens (or items) generated."""
    lost: float
    """Mean points the winner lies below the best."""


@dataclass(frozen=True)
class Rule:
    """What decides when a trial is stopped."""

    settings: RacingSettings
    reference: str
    """`trials`: all trials evaluated in full predict an item's score; `incumbent`: its own score does."""
    problems: int | None = None
    """Problems of a replay; None: all."""
    trials: int | None = None
    """Trials of a replay; None: all."""
    tell_apart: float | None = None
    """Least weight of a problem in a trial's own order, in shares of the largest; None: one order, all alike."""
    in_order: bool = False
    """Trials in the order of the study, where the sampler's later ones crowd around the best; else in a random one."""


def replay(scores: Array, tokens: Array, rule: Rule, generator: np.random.Generator) -> tuple[float, float]:
    """(points lost by the winner, share of tokens) of one replay. `scores`, `tokens`: (trials, problems)."""
    trials = generator.permutation(scores.shape[0])[: rule.trials]
    if rule.in_order:
        trials = np.sort(trials)
    problems = generator.permutation(scores.shape[1])[: rule.problems]
    scores, tokens = scores[trials][:, problems], tokens[trials][:, problems]
    incumbent, complete, used = 0, [0], float(tokens[0].sum())
    for index in range(1, len(scores)):
        reference = scores[incumbent]
        if rule.reference == "trials":
            reference = predictions(scores[complete], reference)
        asked, done = np.arange(scores.shape[1]), 0
        if rule.tell_apart is None:
            done = length(scores[index], scores[incumbent], reference, rule.settings)
        else:
            weights = np.maximum(np.sqrt(reference * (1 - reference)), rule.tell_apart / 2)
            asked = np.argsort(generator.exponential(size=len(weights)) / weights)
            done = drawn_length(scores[index], scores[incumbent], reference, rule.settings, weights, asked)
        used += float(tokens[index, asked[:done]].sum())
        if done < scores.shape[1]:
            continue
        complete.append(index)
        if scores[index].mean() > scores[incumbent].mean():
            incumbent = index
    full = scores.mean(axis=1)
    return 100 * float(full.max() - full[incumbent]), used / float(tokens.sum())


def length(trial: Array, incumbent: Array, reference: Array, settings: RacingSettings) -> int:
    """Items of `trial` that are generated before it is stopped; all of them when it is not."""
    found = evidence(trial, float(incumbent.mean()) + settings.margin, reference)
    ends = looks(len(trial), settings.block, settings.growth)
    return next((end for end in ends if found[end - 1] >= 1 / settings.error_rate), len(trial))


def drawn_length(
    trial: Array, incumbent: Array, reference: Array, settings: RacingSettings, weights: Array, asked: NDArray[np.int64]
) -> int:
    """`length` for problems that are asked in the order `asked`, drawn one after the other with these weights."""
    needed = float(incumbent.mean()) + settings.margin
    found = drawn_evidence(trial[asked], needed, reference[asked], weights[asked])
    ends = looks(len(trial), settings.block, settings.growth)
    return next((end for end in ends if found[end - 1] >= 1 / settings.error_rate), len(trial))


def drawn_evidence(trial: Array, needed: float, reference: Array, weights: Array) -> Array:
    """(n,) largest evidence that a trial's mean ends below `needed`, its items drawn with unequal chances.

    All arguments in the order of drawing. With W the weights of the items that are left, the next one i comes with the
    chance w_i / W, so that d_i W / w_i has the sum of the differences that are left as its mean: a bettor against the
    hypothesis that this sum is at least M = N m - Σ d seen is a supermartingale, as in `racing.py`, for whatever
    weights were settled before the draw. Its bets are small where an item could count for much: d_i W / w_i <= U.
    """
    total = len(reference)
    differences, seen = trial - reference, np.arange(1, total + 1)
    left = np.cumsum(weights[::-1])[::-1]
    missing = total * (needed - reference.mean()) - np.concatenate([[0.0], np.cumsum(differences)[:-1]])
    upper = np.maximum.accumulate(((1 - reference) / weights)[::-1])[::-1] * left
    possible = missing < upper - 1e-9
    bets = np.outer(SHARES, (differences * left / weights - missing) / np.where(possible, upper - missing, 1.0))
    steps = np.where(possible, np.log1p(-np.minimum(bets, SHARES[:, None])), 0.0)
    found = np.where(np.maximum.accumulate(missing > upper + 1e-9), np.inf, np.exp(np.cumsum(steps, 1)).mean(axis=0))
    best = (np.cumsum(trial) + total - seen) / total
    return np.maximum.accumulate(np.where(best < needed - 1e-9, np.inf, found))


def replays(scores: Array, tokens: Array, rule: Rule, count: int) -> Replays:
    """Summary of `count` replays, each with its own generator."""
    generators = [np.random.default_rng(derive_seed("replay", index)) for index in range(count)]
    lost, used = np.array([replay(scores, tokens, rule, generator) for generator in generators]).T
    close = int((lost <= 1 + 1e-9).sum())
    return Replays(
        same=float((lost < 1e-9).mean()),
        close=close / count,
        close_interval=wilson(close, count),
        tokens=float(used.mean()),
        lost=float(lost.mean()),
    )


def load(path: Path) -> tuple[Array, Array, int]:
    """(scores, tokens, trials left out) of an npz file or a study folder."""
    if path.is_file():
        stored = np.load(path)
        scores = stored["scores"].astype(float)
        return scores, stored["tokens"].astype(float) if "tokens" in stored else np.ones_like(scores), 0
    trials = [trial for trial in map(_items, sorted(path.rglob("items.jsonl"))) if trial]
    if not trials:
        raise SystemExit(f"{path} must hold an items.jsonl per trial, but none was found below it")
    shared = sorted(max(trials, key=len))
    complete = [trial for trial in trials if trial.keys() >= set(shared)]
    table = np.array([[np.mean(trial[name], axis=0) for name in shared] for trial in complete])
    return table[:, :, 0], table[:, :, 1], len(trials) - len(complete)


def _items(path: Path) -> dict[str, list[tuple[float, float]]]:
    items: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        items.setdefault(item["problem"], []).append((float(item["verdict"] == "correct"), float(item["tokens"])))
    return items


def _grid(error_rate: float, margin: float, grid: bool) -> Iterator[tuple[float, float]]:
    if not grid:
        yield error_rate, margin
        return
    for rate in (0.05, 0.1, 0.2, 0.3, 0.5):
        for points in (0.0, 0.01, 0.02, 0.04):
            yield rate, points


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--error-rate", type=float, default=RacingSettings().error_rate)
    parser.add_argument("--margin", type=float, default=RacingSettings().margin)
    parser.add_argument("--block", type=int, default=RacingSettings().block)
    parser.add_argument("--growth", type=float, default=RacingSettings().growth)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--problems", type=int)
    parser.add_argument("--reference", choices=["trials", "incumbent"], default="trials")
    parser.add_argument("--in-order", action="store_true")
    parser.add_argument("--tell-apart", type=float)
    parser.add_argument("--grid", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print one line for each combination of error rate and margin."""
    arguments = parse()
    scores, tokens, incomplete = load(arguments.path)
    full = np.sort(100 * scores.mean(axis=1))
    print(f"{scores.shape[0]} trials of {scores.shape[1]} problems ({incomplete} incomplete left out)")
    print(f"scores {full[0]:.1f} to {full[-1]:.1f}, median {np.median(full):.1f}")
    print("error rate  margin  same winner  within 1 point (95 % interval)  points lost  tokens")
    for rate, margin in _grid(arguments.error_rate, arguments.margin, arguments.grid):
        settings = RacingSettings(error_rate=rate, margin=margin, block=arguments.block, growth=arguments.growth)
        rule = Rule(
            settings,
            arguments.reference,
            arguments.problems,
            arguments.trials,
            arguments.tell_apart,
            arguments.in_order,
        )
        found = replays(scores, tokens, rule, arguments.replays)
        low, high = found.close_interval
        print(
            f"{rate:10.2f}  {margin:6.2f}  {found.same:11.1%}  {found.close:7.1%} ({low:.1%} to {high:.1%})"
            f"  {found.lost:19.2f}  {found.tokens:6.1%}"
        )


if __name__ == "__main__":
    main()
