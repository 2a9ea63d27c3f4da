"""Confirmation: candidates retrained with fresh seeds, scored on problems that no trial has seen.

A confirmation is a study of its own, without a sampler, in the folder `confirmation-<id>` of the study it belongs to:
it runs, resumes and is tracked like one. The id comes from its candidates and from what it is asked, so another winner
is another confirmation. Its race is settled when it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.statistics.confirmation import Confirmation, Outcome
from ...evaluation.statistics.settings import FinalsSettings
from ...spaces.errors import UserError
from ...spaces.identity import content_id
from ..confirmation.candidates import no_rival
from ..confirmation.race import verdict_of
from ..store.history import load_history
from ..store.study import Searched
from ..study.config import StudyConfig
from ..study.config_file import read_folder, with_kept_date
from ..study.files import read_json, write_json
from ..study.folder_file import FOLDER_FILE, named
from ..study.parts import Candidate, ConfirmationSettings, ConfirmedSearch
from .seen import refuse_seen

VERDICT_FILE = "confirmation.json"
NOT_ASKED = {"against_published": None, "lasting": (), "undecided": (), "no_rival": None, "longer": None}
"""What a verdict of before says of questions that were not asked then."""


def confirmation_config(
    config: StudyConfig,
    chosen: tuple[Candidate, ...],
    search: Searched | None = None,
    race: FinalsSettings | None = None,
) -> StudyConfig:
    """The confirmation as a study file; `search`: what it is held against, `race`: as planned.

    One that has begun keeps the race that it began with.

    Raises UserError when no problems are asked for.
    """
    asked = config.evaluation.report_problems
    if not asked:
        raise UserError(
            "`evaluation.report_problems` must be above 0 for a confirmation, but got 0; set it to 256 or more, "
            "which are taken from what no trial has seen",
            field="evaluation.report_problems",
        )
    name, confirms = _name(config, chosen), None
    if search is not None and search.fingerprints:
        kept = search.config.evaluation.report_problems
        confirms = ConfirmedSearch(fingerprints=dict(search.fingerprints), report_problems=kept)
        name = name if kept == asked else f"{name}-{asked}"
    folder = config.study_folder / f"confirmation-{name}"
    begun = read_folder(folder).race if (folder / FOLDER_FILE).is_file() else None
    settings = config.search.model_copy(update={"pruner": "none"})
    evaluation: dict[str, Any] = {"racing": None}  # every replicate answers every problem
    race = race or usual_race(config.confirmation)
    if (retention := config.evaluation.retention) is not None:
        race = race.model_copy(update={"most_forgotten": retention.limit})
        evaluation["retention"] = retention.model_copy(update={"role": "report", "limit": None})
    changes = {
        "study": f"{config.study}.confirmation-{name}",
        "folder": named(folder, config.base_folder),
        "baselines": (),
        "candidates": chosen,
        "confirms": confirms,
        "race": begun or race,
        "search": settings,
        "evaluation": config.evaluation.model_copy(update=evaluation),
        "date": with_kept_date(config).date,
    }
    return config.model_copy(update=changes)


def usual_race(asked: ConfirmationSettings) -> FinalsSettings:
    """A race that was not planned: what the study's file says, and defaults."""
    limits = {"longer": asked.longer, "longer_seeds": asked.longer_seeds}
    return FinalsSettings.model_validate(limits | ({} if asked.seeds is None else {"seeds": asked.seeds}))


def _name(config: StudyConfig, chosen: Sequence[Candidate]) -> str:
    asked = config.confirmation.model_dump(mode="json", exclude={"automatic", "designs"})
    return content_id([[candidate.model_dump(mode="json") for candidate in chosen], asked])[:8]


def is_concluded(config: StudyConfig, chosen: Sequence[Candidate]) -> bool:
    """Whether these designs were confirmed on as many problems as the study asks for, with nothing left open."""
    files = config.study_folder.glob(f"confirmation-{_name(config, chosen)}*/{VERDICT_FILE}")
    found = [read_json(file) or {} for file in files]
    asked = config.evaluation.report_problems
    return any(each.get("problems") == asked and not each.get("undecided") for each in found)


def conclude(config: StudyConfig, limit: float | None = None) -> dict[str, Any]:
    """Decide a confirmation from its trial folders, write the verdict beside them, and return it.

    Of one that was cut it says what is decided and what is not; nothing is written before there is a winner.
    `limit`: the most that the study allows a design to forget; one that forgets more over the fresh seeds wins only
    where no other is better than plain SFT.
    """
    refuse_seen(config.study_folder)
    found = verdict_of(config, load_history(config))
    described = _described(config, found)
    winner = winner_within(found, described, limit)
    verdict = {"study": config.study, "candidates": described, **found.as_dict(), "winner": winner, "limit": limit}
    verdict |= {"no_rival": no_rival(config.candidates), "longer": config.race.longer if config.race else None}
    verdict["order"] = _next_order(config.study_folder)
    if winner is not None or not found.undecided:
        write_json(config.study_folder / VERDICT_FILE, verdict)
    return verdict


def _next_order(folder: Path) -> int:
    """One more than the verdicts beside that of `folder`: which is the newest is no matter of clocks."""
    others = [file for file in verdict_files(folder.parent) if file.parent != folder]
    return 1 + max((_order(file)[0] for file in others), default=0)


def winner_within(found: Confirmation, candidates: Sequence[Mapping[str, Any]], limit: float | None) -> str | None:
    """The design with the largest shrunken effect among those better than SFT that keep within `limit`, if any does."""
    forgotten = {str(each["title"]): (each["retention"] or {}).get("forgotten", 0.0) for each in candidates}
    better = [each for each in found.comparisons if each.outcome is Outcome.BETTER]
    kept = [each for each in better if limit is None or forgotten[each.title] <= limit]
    best = max(kept or better, key=lambda each: each.shrunken, default=None)
    return None if best is None else best.title


def retained(config: StudyConfig) -> dict[str, dict[str, float]]:
    """Mean over seeds of what each candidate kept and forgot; empty for a study that does not measure it."""
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for record in load_history(config):
        if record.retention is not None and record.longer is None:
            kept.setdefault(record.candidate or record.title, []).append(record.retention)
    return {
        title: {name: float(np.mean([each[name] for each in found])) for name in ("value", "forgotten")}
        for title, found in kept.items()
    }


def _described(config: StudyConfig, found: Confirmation) -> list[dict[str, Any]]:
    kept, scores = retained(config), {each.title: each.score for each in found.comparisons}
    return [
        {
            **candidate.model_dump(mode="json"),
            "score": found.sft_score if candidate.role == "sft" else scores.get(candidate.title),
            "retention": kept.get(candidate.title),
        }
        for candidate in config.candidates
    ]


def is_decided(verdict: Mapping[str, Any] | None) -> bool:
    """Whether there is a verdict that leaves nothing open."""
    return verdict is not None and not verdict.get("undecided")


def stored_verdict(config: StudyConfig) -> dict[str, Any] | None:
    """The newest verdict of a study, or None when it has not been confirmed."""
    files = verdict_files(config.study_folder)
    found = read_json(files[-1]) if files else None
    return None if found is None else within_scores(found)


def within_scores(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict whose intervals end where a difference of two scores must, in today's form.

    Verdicts of before compared every design with plain SFT over the same seeds, and asked nothing else.
    """
    before = {"seeds": verdict.get("seeds")}
    comparisons = [
        {**before, **each, "low": max(-1.0, float(each["low"])), "high": min(1.0, float(each["high"]))}
        for each in verdict["comparisons"]
    ]
    return {**NOT_ASKED, "sft_seeds": verdict.get("seeds"), **verdict, "comparisons": comparisons}


def verdict_files(folder: Path) -> list[Path]:
    """The verdicts in a study's folder, the newest last, wherever it was copied to."""
    return sorted(folder.glob(f"confirmation-*/{VERDICT_FILE}"), key=_order)


def _order(file: Path) -> tuple[int, float]:
    """Place among the verdicts of a study; the date of the file for those that were written without one."""
    try:
        order = int((read_json(file) or {}).get("order", 0))
    except (ValueError, TypeError):  # damaged: whoever reads it says so
        order = 0
    return order, file.stat().st_mtime
