"""Confirmation: the best designs and plain SFT, retrained with fresh seeds, scored on problems that no trial has seen.

A confirmation is a study of its own, without a sampler, in the folder `confirmation-<id>` of the study it belongs to:
it runs, resumes and is tracked like one. The id comes from its candidates, so another winner is another confirmation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.statistics.confirmation import Confirmation, Outcome, confirm
from ...spaces import presets
from ...spaces.errors import UserError
from ...spaces.identity import canonical_id, content_id, derive_seed
from ..store.history import TrialRecord, load_history, plain_sft
from ..store.study import Searched
from ..study.config import Candidate, ConfirmedSearch, StudyConfig
from ..study.config_file import with_kept_date
from ..study.files import read_json, write_json
from ..study.folder_file import named
from .seen import refuse_seen

VERDICT_FILE = "confirmation.json"
SFT = "sft"


def candidates(config: StudyConfig, records: Sequence[TrialRecord]) -> tuple[Candidate, ...]:
    """Plain SFT at its best learning rate, the best other designs, and Target-SFT's default where there is a teacher.

    Raises UserError when there is nothing to compare, or nothing to compare with.
    """
    sft = plain_sft(records)
    if sft is None:
        raise UserError(
            "a confirmation needs plain SFT to compare with, but no trial of the baseline `sft` is complete; "
            "add it to `baselines`, or run the study on",
            field="baselines",
        )
    found = [_candidate(sft, SFT), *_best_others(records, config.confirmation.designs)]
    published = _published_target_sft(config, records)
    known = {canonical_id(candidate.target) for candidate in found}
    if published is not None and canonical_id(published.target) not in known:
        found.append(published)
    if len(found) == 1:
        raise UserError("a confirmation needs a complete trial beside plain SFT, but there is none; run the study on")
    return tuple(found)


def _best_others(records: Sequence[TrialRecord], count: int) -> list[Candidate]:
    """The best designs that are not plain SFT, each once, best first."""
    complete = [record for record in records if record.state == "complete" and record.target is not None]
    ranked = sorted(complete, key=lambda record: (-(record.score or 0.0), record.number))
    sft = canonical_id(presets.get("sft"))
    once: dict[str, Candidate] = {}
    for record in ranked:
        assert record.target is not None
        if (name := canonical_id(record.target)) != sft:
            once.setdefault(name, _candidate(record, f"trial {record.number}: {record.title}"))
    return list(once.values())[:count]


def _published_target_sft(config: StudyConfig, records: Sequence[TrialRecord]) -> Candidate | None:
    target = presets.get("target_sft")
    if not target.needs <= config.inputs:
        return None
    tried = [record for record in records if record.target == target]
    same = [record for record in tried if record.state == "complete"]
    if not same and any(record.state == "infeasible" for record in tried):
        return None  # it must not win: it forgets more than the study allows, or cannot be trained here
    best = max(same, key=lambda record: record.score or 0.0, default=None)
    return Candidate(title="target_sft", target=target, training=dict(best.training) if best else {})


def _candidate(record: TrialRecord, title: str) -> Candidate:
    assert record.target is not None
    return Candidate(title=title, target=record.target, training=dict(record.training))


def confirmation_config(
    config: StudyConfig, chosen: tuple[Candidate, ...], search: Searched | None = None
) -> StudyConfig:
    """The confirmation as a study file; `search`: what it is held against.

    Raises UserError when no problems are asked for.
    """
    asked = config.evaluation.report_problems
    if not asked:
        raise UserError(
            "`evaluation.report_problems` must be above 0 for a confirmation, but got 0; set it to 256 or more, "
            "which are taken from what no trial has seen",
            field="evaluation.report_problems",
        )
    name = _name(chosen)
    confirms = None
    if search is not None and search.fingerprints:
        kept = search.config.evaluation.report_problems
        confirms = ConfirmedSearch(fingerprints=dict(search.fingerprints), report_problems=kept)
        name = name if kept == asked else f"{name}-{asked}"
    settings = config.search.model_copy(update={"trials": len(chosen) * config.confirmation.seeds, "pruner": "none"})
    evaluation: dict[str, Any] = {"racing": None}  # every replicate answers every problem
    if (retention := config.evaluation.retention) is not None:
        evaluation["retention"] = retention.model_copy(update={"role": "report", "limit": None})
    changes = {
        "study": f"{config.study}.confirmation-{name}",
        "folder": named(config.study_folder / f"confirmation-{name}", config.base_folder),
        "baselines": (),
        "candidates": chosen,
        "confirms": confirms,
        "search": settings,
        "evaluation": config.evaluation.model_copy(update=evaluation),
        "date": with_kept_date(config).date,
    }
    return config.model_copy(update=changes)


def _name(chosen: Sequence[Candidate]) -> str:
    return content_id([candidate.model_dump(mode="json") for candidate in chosen])[:8]


def is_concluded(config: StudyConfig, chosen: Sequence[Candidate]) -> bool:
    """Whether these designs were confirmed on as many problems as the study asks for."""
    found = (
        read_json(file) or {} for file in config.study_folder.glob(f"confirmation-{_name(chosen)}*/{VERDICT_FILE}")
    )
    return any(verdict.get("problems") == config.evaluation.report_problems for verdict in found)


def conclude(config: StudyConfig, limit: float | None = None) -> dict[str, Any]:
    """Decide a finished confirmation from its trial folders, write the verdict beside them, and return it.

    `limit`: the most that the study allows a design to forget; one that forgets more over the fresh seeds wins only
    where no other is better than plain SFT.
    """
    refuse_seen(config.study_folder)
    scores = replicate_scores(config)
    titles = [candidate.title for candidate in config.candidates if candidate.title != SFT]
    generator = np.random.default_rng(derive_seed("confirmation", config.study))
    found: Confirmation = confirm(scores[SFT], {title: scores[title] for title in titles}, generator)
    described = _described(config, scores)
    winner = winner_within(found, described, limit)
    verdict = {"study": config.study, "candidates": described, **found.as_dict(), "winner": winner, "limit": limit}
    verdict["order"] = _next_order(config.study_folder)
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
        if record.retention is not None:
            kept.setdefault(record.title, []).append(record.retention)
    return {
        title: {name: float(np.mean([each[name] for each in found])) for name in ("value", "forgotten")}
        for title, found in kept.items()
    }


def replicate_scores(config: StudyConfig) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Average@k of every problem under every seed: title to an array (problems, seeds), problems in one order."""
    records = load_history(config)
    unfinished = [record.number for record in records if record.state != "complete"]
    if unfinished:
        raise UserError(f"a confirmation needs all its trials, but {unfinished} are not complete; run it again")
    columns: dict[str, list[dict[str, float]]] = {}
    for record in records:
        columns.setdefault(record.title, []).append(problem_scores(record.folder / "items.jsonl"))
    order = sorted(columns[SFT][0])
    return {
        title: np.array([[column[problem] for column in seeds] for problem in order])
        for title, seeds in columns.items()
    }


def problem_scores(items: Path) -> dict[str, float]:
    """Share of correct samples of each problem in an items file."""
    verdicts: dict[str, list[bool]] = {}
    for line in items.read_text("utf-8").splitlines():
        item = json.loads(line)
        verdicts.setdefault(item["problem"], []).append(item["verdict"] == "correct")
    return {problem: sum(correct) / len(correct) for problem, correct in verdicts.items()}


def _described(config: StudyConfig, scores: dict[str, Any]) -> list[dict[str, Any]]:
    kept = retained(config)
    return [
        {
            **candidate.model_dump(mode="json"),
            "score": float(scores[candidate.title].mean()),
            "retention": kept.get(candidate.title),
        }
        for candidate in config.candidates
    ]


def stored_verdict(config: StudyConfig) -> dict[str, Any] | None:
    """The newest verdict of a study, or None when it has not been confirmed."""
    files = verdict_files(config.study_folder)
    found = read_json(files[-1]) if files else None
    return None if found is None else within_scores(found)


def within_scores(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict whose intervals end where a difference of two scores must."""
    comparisons = [
        {**each, "low": max(-1.0, float(each["low"])), "high": min(1.0, float(each["high"]))}
        for each in verdict["comparisons"]
    ]
    return {**verdict, "comparisons": comparisons}


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
