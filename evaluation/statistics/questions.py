"""The three questions of a confirmation, asked of S races after each run (`finals.py` says in which order)."""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr, stdtr

from .leads import Array, Counts, Runs
from .sequential import FIRST_LOOK, last_score, levels
from .standing import (
    CLAIMED,
    GROWS,
    HOLDS,
    LENGTH,
    NOT_ASKED,
    OPEN,
    OVER,
    PUBLISHED,
    RACING,
    SHRINKS,
    TRAILING,
    UNSETTLED,
    Flags,
    Standing,
)

FIRST_LONG_LOOK = 2
"""Seeds of the longer training before anything is said of it."""
PUBLISHED_PATIENCE = 0.75
"""`patience` with the published objective: it leaves unless its runs favour the lead that is looked for by 4 to 3."""
HOPE = 2.0
"""How much larger than it looks a change over its error may turn out, before the longer runs are given up."""
REACH = 0.1
"""A lead is given up once more seeds would settle it with a smaller probability."""
LOST = 0.5
"""Share of a lead that may go before it no longer holds."""


def race(at: Standing, runs: Runs, open_: Flags) -> None:
    """Is a candidate better than plain SFT?"""
    count = at.line.candidates
    claimed = np.zeros((at.studies, count), dtype=bool)
    for index in range(1, count):
        claimed[:, index] = _beats_sft(at, index, open_ & at.racing[:, index])
    effects, winners = runs.means[:, :count] - runs.means[:, [0]], claimed & at.may_win()
    won = np.asarray(winners.any(axis=1))
    at.racing[claimed & ~winners] = False  # better than plain SFT, but it forgets too much: another may still win
    _drop(at, runs, effects, open_ & ~won)
    _crown(at, effects, winners)
    end_race(at, runs, open_ & ~won & ~at.racing.any(axis=1))


def end_race(at: Standing, runs: Runs, where: Flags) -> None:
    """Nobody is left: where some are better than plain SFT but none keeps within the limit, the best of them wins."""
    count = at.line.candidates
    at.stage[where] = OVER
    _crown(at, runs.means[:, :count] - runs.means[:, [0]], at.better & where[:, None])


def _crown(at: Standing, effects: Array, winners: Flags) -> None:
    """The largest effect wins, where there is any winner, and is asked what follows."""
    won = np.asarray(winners.any(axis=1))
    at.winner[won] = np.where(winners, effects, -np.inf).argmax(axis=1)[won]
    _after_race(at, won)


def _beats_sft(at: Standing, index: int, open_: Flags) -> Flags:
    """A look at question 1 of one candidate, by the error rate that is its own."""
    seeds = at.seeds[:, index]
    due = open_ & (seeds <= at.seeds[:, 0])
    table = levels(at.error_rates[index], at.settings.seeds)
    claimed = _look(at, index, seeds, at.contrast(index, 0), due, table)
    at.note(RACING, index, CLAIMED, claimed)
    at.better[:, index] |= claimed
    return claimed


def published(at: Standing, runs: Runs, open_: Flags) -> None:
    """Is the winner better than the best published objective? Its own first question goes on beside that."""
    rival = at.line.published
    assert rival is not None
    asked = open_ & (at.against_published == OPEN)
    _beats_sft(at, rival, open_ & at.racing[:, rival])
    ours, theirs = at.seeds[at.rows, at.winner], at.seeds[:, rival]
    weights, claimed = at.contrast(at.winner, rival), np.zeros(at.studies, dtype=bool)
    for index in at.line.designs:
        due = asked & (at.winner == index) & (theirs <= ours)
        claimed |= _look(at, 0, theirs, weights, due, levels(at.published_rate(index), at.settings.seeds))
    effects = runs.means[at.rows, at.winner] - runs.means[:, rival]
    through = (ours >= at.settings.seeds) & (theirs >= at.settings.seeds)
    hopeless = _is_hopeless(at, effects, ours, theirs, _spread(at, runs))
    fewer, (winners, places) = np.where(asked, np.minimum(ours, theirs), 0), np.unique(at.winner, return_inverse=True)
    needed = np.array([last_score(at.published_rate(int(each)), at.settings.seeds) for each in winners])[places]
    leaves = asked & ~claimed & (hopeless | through | _is_out_of_reach(at, weights, fewer, needed))
    at.against_published[claimed], at.against_published[leaves] = CLAIMED, UNSETTLED
    at.note(PUBLISHED, rival, CLAIMED, claimed)
    at.note(PUBLISHED, rival, UNSETTLED, leaves)
    behind = at.overtaken() & open_ & (effects < 0)
    _overtake(at, runs, behind)
    start_length(at, claimed | (open_ & at.overtaken() & ~behind))


def _overtake(at: Standing, runs: Runs, where: Flags) -> None:
    """The published objective is ahead of the winner: once it is better than plain SFT, too, it wins itself."""
    rival = at.line.published
    assert rival is not None
    wins = where & at.better[:, rival] & at.may_win()[:, rival]
    at.winner[wins], at.against_published[wins] = rival, NOT_ASKED
    lost = _is_lost(at, runs.means[:, rival] - runs.means[:, 0], rival, where & ~wins, _spread(at, runs))
    at.note(RACING, rival, UNSETTLED, lost & ~at.better[:, rival])
    at.racing[lost, rival] = False
    start_length(at, wins | (where & (at.better[:, rival] | ~at.racing[:, rival])))


def length(at: Standing, runs: Runs, open_: Flags) -> None:
    """Does the lead last? Asked of each rival when it and the winner have as many of the longer runs."""
    count, last = at.line.candidates, at.settings.longer_seeds
    longer = runs.seeds[:, count:]
    fewest = np.where(at.finalists, longer, last + 1).min(axis=1)
    even = np.where(at.finalists, longer, 0).max(axis=1) == fewest
    looked = open_ & even & (fewest >= min(FIRST_LONG_LOOK, last))
    for place, rival in enumerate((0, at.line.published)):
        asked = looked & (at.trend[:, place] == OPEN)
        if rival is not None and asked.any():
            rows = np.flatnonzero(asked)
            found, ends = _trends(at, rival, fewest, rows), _is_beyond_telling(at, rival, fewest, rows)
            at.trend[rows, place] = np.where((found == OPEN) & ((fewest[rows] >= last) | ends), UNSETTLED, found)
            at.note(LENGTH, rival, int(at.trend[0, place]), asked & (at.trend[:, place] != OPEN))
    at.stage[looked & (at.trend != OPEN).all(axis=1)] = OVER


def _is_beyond_telling(at: Standing, rival: int, look: Counts, rows: Counts) -> Flags:
    """Of some studies, whether nothing would be said of a lead at the last look, were its change and noise to stay.

    Its error shrinks with the number of longer runs; a change `HOPE` times as large over its error is allowed for.
    """
    last, beyond = at.settings.longer_seeds, np.ones(len(rows), dtype=bool)
    limits = _trend_levels(at, np.full(len(rows), last), rows)
    for kept in (1.0, LOST):
        found = at.lead(at.change(at.winner, rival, kept)).of(rows)
        size = np.abs(found.effect) if kept == 1.0 else np.maximum(found.effect, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            score = HOPE * np.sqrt(last / np.maximum(look[rows], 1)) * np.where(size > 0, size / found.error, 0.0)
        beyond &= stdtr(found.freedom + last - look[rows], -score) > limits
    return beyond


def _trend_levels(at: Standing, look: Counts, rows: Counts) -> Array:
    """Of some studies, the p-value that is significant, on either side, at a look at the longer runs."""
    last = at.settings.longer_seeds
    return np.array(
        [levels(float(rate) / 2, last, FIRST_LONG_LOOK).get(int(seeds), 0.0) if rate > 0 else 0.0
         for rate, seeds in zip(at.trend_rates()[rows], look, strict=True)]
    )  # fmt: skip


def _look(at: Standing, place: int, seeds: Counts, weights: Array, due: Flags, table: Mapping[int, float]) -> Flags:
    """Whether a look at a lead is significant; each number of seeds is looked at once."""
    due = due & (seeds > at.looked[:, place]) & np.isin(seeds, list(table))
    if not due.any():
        return due
    at.looked[due, place] = seeds[due]
    rows, claimed = np.flatnonzero(due), np.zeros_like(due)
    claimed[rows] = at.lead(weights).of(rows).p_value <= np.array([table[int(each)] for each in seeds[rows]])
    return claimed


def _spread(at: Standing, runs: Runs) -> Array:
    """(S,) variance of a run, for decisions about cost: pooled, with what was known before; NaN while unknown."""
    before = 0.0 if at.settings.noise is None else at.settings.noise_freedom
    known = before * (at.settings.noise or 0.0) ** 2
    total = runs.freedom.sum(axis=1) + before
    summed = (runs.variances * runs.freedom).sum(axis=1) + known
    return np.asarray(np.where(total > 0, summed / np.maximum(total, 1e-9), np.nan))


def _is_hopeless(
    at: Standing, effect: Array, ours: Counts, theirs: Counts, spread: Array, patience: float | None = None
) -> Flags:
    """Whether the data favour no lead over the one looked for by `patience` to one."""
    patience = at.settings.patience if patience is None else patience
    variance = spread * (1 / np.maximum(ours, 1) + 1 / np.maximum(theirs, 1))
    detect = at.settings.detect
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = detect * (effect - detect / 2) / variance
    return np.asarray((ours > 0) & (theirs > 0) & (log_ratio < -np.log(patience)))


def _is_out_of_reach(at: Standing, weights: Array, fewer: Counts, needed: Array | float) -> Flags:
    """(S,) whether the last look would hardly claim a lead: what problems leave open, no seed settles.

    Predictive probability of a claim (Spiegelhalter, Freedman and Blackburn 1986): given the runs so far, the lead that
    all seeds will show is normal about the one seen. `fewer`: runs of the one of the two that has fewer; `needed`: what
    the last look asks of a lead, in standard errors.
    """
    seen = fewer >= FIRST_LOOK
    if not seen.any():
        return np.asarray(seen)
    found, variance = at.lead(weights), at.eventual(weights)
    to_come = np.sqrt(np.maximum(found.error**2 - variance, 1e-12))
    return np.asarray(seen & (ndtr((found.effect - needed * np.sqrt(variance)) / to_come) < REACH))


def _drop(at: Standing, runs: Runs, effects: Array, open_: Flags) -> None:
    """Let candidates leave that would cost more than they promise."""
    count, seeds = at.line.candidates, at.seeds
    spread = _spread(at, runs)
    seen = open_[:, None] & at.racing & (seeds[:, :count] > 0) & (seeds[:, [0]] > 0)
    trails = _trails(at, effects, seen, spread)
    for index in range(1, count):
        leaves = _is_lost(at, effects[:, index], index, open_, spread) | trails[:, index]
        at.racing[leaves, index] = False
        at.note(RACING, index, UNSETTLED, leaves)


def _is_lost(at: Standing, effect: Array, index: int, open_: Flags, spread: Array) -> Flags:
    """(S,) whether a candidate's race with plain SFT is given up, or at its limit of seeds."""
    own, sft, most = at.seeds[:, index], at.seeds[:, 0], at.settings.seeds
    seen = open_ & at.racing[:, index] & (own > 0) & (sft > 0)
    patience = PUBLISHED_PATIENCE if index == at.line.published else at.settings.patience
    hopeless = _is_hopeless(at, effect, own, sft, spread, patience)
    fewer, needed = np.where(seen, np.minimum(own, sft), 0), last_score(at.error_rates[index], most)
    hopeless |= _is_out_of_reach(at, at.contrast(index, 0), fewer, needed)
    return np.asarray(seen & (hopeless | ((own >= most) & (sft >= most))))


def _trails(at: Standing, effects: Array, seen: Flags, spread: Array) -> Flags:
    """(S, C) designs too far behind the leading one; one that forgets too much leads only where all do."""
    designs = seen.copy()
    if at.line.published is not None:
        designs[:, at.line.published] = False
    runs = np.maximum(at.seeds[:, : at.line.candidates], 1)
    front = designs & at.may_win()
    front = np.where(front.any(axis=1, keepdims=True), front, designs)
    leading = np.where(front, effects, -np.inf).argmax(axis=1)
    errors = np.sqrt(spread[:, None] * (1 / runs + 1 / runs[at.rows, leading][:, None]))
    gaps = effects[at.rows, leading][:, None] - effects
    return np.asarray(designs & (gaps > TRAILING * errors))


def _after_race(at: Standing, won: Flags) -> None:
    """What winners are asked next."""
    asked = won & (at.winner != at.line.published) if at.line.published is not None else np.zeros_like(won)
    at.stage[asked], at.against_published[asked] = PUBLISHED, OPEN
    start_length(at, won & ~asked)


def start_length(at: Standing, where: Flags) -> None:
    """Ask the third question, where the settings ask it at all."""
    at.stage[where] = OVER if at.settings.longer is None else LENGTH
    if at.settings.longer is None:
        return
    at.trend[where, 0] = OPEN
    if at.line.published is not None:
        at.trend[where & (at.winner != at.line.published), 1] = OPEN


def _trends(at: Standing, rival: int, look: Counts, rows: Counts) -> Counts:
    """Of some studies, what may be said of a lead in the longer training; open where nothing may."""
    found, kept = (at.lead(at.change(at.winner, rival, part)).of(rows) for part in (1.0, LOST))
    allowed = _trend_levels(at, look[rows], rows)
    shrinks, grows = 1 - found.p_value <= allowed, found.p_value <= allowed
    return np.select([shrinks, grows, kept.p_value <= allowed], [SHRINKS, GROWS, HOLDS], OPEN)
