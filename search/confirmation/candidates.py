"""Who is confirmed: plain SFT, the best published objective, and the best designs that the search found.

What a trial measured may decide who is worth a confirmation, never what is said of it: that is left to fresh seeds and
untouched problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from ...spaces import presets
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id
from ..store.history import TrialRecord, is_scored, plain_sft, tuned
from ..study.config import StudyConfig
from ..study.parts import Candidate

SFT = "sft"
_SFT = canonical_id(presets.get(SFT))


def candidates(config: StudyConfig, records: Sequence[TrialRecord]) -> tuple[Candidate, ...]:
    """Plain SFT at its best training knobs, the best published objective, and the best other designs.

    Raises UserError when there is nothing to compare, or nothing to compare with.
    """
    sft = _best_sft(records) or plain_sft(records)
    if sft is None:
        raise UserError(
            "a confirmation needs plain SFT to compare with, but no trial of it is complete; "
            "add `sft` to `baselines`, or run the study on",
            field="baselines",
        )
    ranked = _once(_others(records))
    published = next(((record, preset) for record, preset in ranked if preset is not None), None)
    designs = [record for record, preset in ranked if preset is None][: config.confirmation.designs]
    found = [_candidate(sft, SFT, "sft")]
    found += [_candidate(each, f"trial {each.number}: {each.title}", "design") for each in designs]
    if published is not None:
        record, preset = published
        found.append(_candidate(record, _title(preset, record), "published"))
    if len(found) == 1:
        raise UserError("a confirmation needs a complete trial beside plain SFT, but there is none; run the study on")
    return tuple(found)


def lacking(config: StudyConfig) -> list[str]:
    """What the baselines leave out that a confirmation compares with, a sentence each."""
    names = [canonical_id(each.target()) for each in config.baseline_settings()]
    found = []
    if _SFT not in names:
        found.append(
            "plain SFT is no baseline, and a confirmation compares with it: unless the search draws it, nothing is "
            "confirmed (add `sft` to `baselines`)"
        )
    if not set(names) - {_SFT}:
        found.append(
            "no baseline is a published objective other than plain SFT: the confirmation will not say whether one "
            "would do as well (`baselines`)"
        )
    return found


def no_rival(chosen: Iterable[Candidate]) -> str | None:
    """Why nothing is said about published objectives, in a sentence; None where one is among the candidates."""
    if any(each.role == "published" for each in chosen):
        return None
    return (
        "No published objective beside plain SFT had a complete trial in the search: whether one would do as well is "
        "not asked (`baselines`)."
    )


def _best_sft(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The most promising complete trial with the gradient of plain SFT, whoever drew it."""
    return tuned(each for each in records if each.target is not None and canonical_id(each.target) == _SFT)


def _others(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials of other gradients than plain SFT's, the best first."""
    complete = [record for record in records if is_scored(record) and record.target is not None]
    others = [record for record in complete if record.target is not None and canonical_id(record.target) != _SFT]
    return sorted(others, key=lambda record: (-(record.score or 0.0), record.number))


def _once(ranked: Sequence[TrialRecord]) -> list[tuple[TrialRecord, str | None]]:
    """The best trial of each gradient, with the preset it is: also where the sampler drew a published objective."""
    names = [(canonical_id(each.target), each) for each in ranked if each.target is not None]
    presets_of = {name: each.baseline for name, each in reversed(names) if each.baseline is not None}
    first = {name: each for name, each in reversed(names)}
    return [(each, presets_of.get(name)) for name, each in names if first[name] is each]


def _candidate(record: TrialRecord, title: str, role: Literal["sft", "published", "design"]) -> Candidate:
    assert record.target is not None
    return Candidate(title=title, target=record.target, training=dict(record.training), role=role, trial=record.number)


def _title(preset: str, record: TrialRecord) -> str:
    """The preset's name, with its learning rate where that was searched."""
    rate = record.training.get("learning_rate")
    return preset if rate is None else f"{preset} at {rate:.2g}"
