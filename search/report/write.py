"""`qtarget report`: what a study found, as one HTML file that needs nothing else, and as Markdown beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ...spaces.errors import UserError
from ..report import figures as figures
from ..store.history import TrialRecord, front
from ..study.files import require_writable, write_atomic
from ..study.secrets import redact
from ..terminal.rungs import agreements, budget_sentence, steps
from ..terminal.tables import winner_sentence
from ..terminal.verdict import answers, decisive, found_a_design
from ..terminal.visible import visible
from .costs import costs, failures
from .data import StudyData, gather
from .items import SideBySide, paired, side_by_side, slices
from .page import render
from .pictures import pictures
from .sheets import Sheets

WINNER_PAIRS, TRIAL_PAIRS = 40, 6
"""Answers shown beside those of plain SFT, of the winner and of every other trial; the rest is in items.jsonl."""
MOST_IMPORTANCES = 8


def write_report(
    path: Path, console: Console, *, out: Path | None = None, compute: bool = True, price: float | None = None
) -> dict[str, str]:
    """Write the report of a study (its YAML file, or its folder wherever it lies); returns the files by kind.

    `out`: the HTML file, default report.html in the study's folder. `compute`: load the models for what is not there
    yet of the demonstrations. `price`: of an engine hour, for the costs.
    Raises UserError for a path without a study, or an `out` that is no .html file.
    """
    check_out(out)
    data = gather(path)
    html = (out or data.folder / "report.html").absolute()
    require_writable(html.parent, "--out" if out else "folder", "name another place: `--out FILE.html`")
    page = {**describe(data, pictures(data, console, compute=compute), str(path)), "price": price}
    files = write_pages(page, html)
    console.print(
        f"{page['verdict']}\nReport written to {html}, and as Markdown beside it", soft_wrap=True, markup=False
    )
    return files


def write_pages(page: Mapping[str, Any], html: Path, name: str = "report") -> dict[str, str]:
    """Write a `report` or a `campaign` as HTML, and as Markdown beside it; returns the files by kind."""
    files = {"html": html, "markdown": html.with_suffix(".md")}
    for kind, file in files.items():
        write_atomic(file, render(kind, page, name))
    return {kind: str(file) for kind, file in files.items()}


def check_out(out: Path | None) -> None:
    """Raise UserError for an `--out` that is no HTML file."""
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"`--out` must be an HTML file, but got {out}; name it report.html")


def describe(data: StudyData, shown: Any, path: str) -> dict[str, Any]:
    """Everything the templates say, as plain values; texts are not escaped yet."""
    sheets = Sheets(data)
    missing = [*data.missing, *sheets.notes]
    if data.winner is None and data.records:
        missing.append("No trial has finished yet, so there is no winner.")
    if data.winner is not None and data.sft is None:
        missing.append("Plain SFT has no score, so there is nothing to compare the winner with.")
    if data.winner is None and any(record.state == "infeasible" for record in data.records):
        missing.append("Some trials are infeasible: each says why under its number.")
    if data.winner is not None and "missing" in shown:
        missing.append(f"The demonstrations cannot be shown: {shown['missing']}.")
    tone, verdict = _verdict(data)
    return {
        "data": data,
        "path": path,
        "up": None,
        "tone": tone,
        "verdict": verdict,
        "missing": missing,
        "confirmed": data.verdict,
        "decisive": decisive(data.verdict) if data.verdict is not None else None,
        "sentences": _sentences(data.verdict),
        "forgotten": _forgotten(data.verdict or {}),
        "limit": (data.verdict or {}).get("limit"),
        "published": _published(data, sheets),
        "winner": data.winner,
        "demonstrations": _scaled(shown.get("demonstrations", [])),
        "learnt": shown.get("learnt"),
        "slices": _slices(data, sheets, shown),
        "pairs": _pairs(data.winner, data, sheets, WINNER_PAIRS),
        "trials": [_trial(record, data, sheets) for record in data.records],
        "costs": costs(data),
        "rungs": _rungs(data),
        "failures": failures(data),
        "settings": _settings(data),
        "retention": _retention(data),
        "plots": _plots(data, shown, _slices(data, sheets, shown)),
    }


def _verdict(data: StudyData) -> tuple[str, str]:
    """(tone, the result in one sentence; the design itself stands beside it)."""
    if data.verdict is None:
        return "open", winner_sentence(data.winner, data.sft)
    shown = decisive(data.verdict)
    tones = {"better than SFT": "better", "worse": "worse"}
    said = {"better than SFT": "Better than plain SFT", "worse": "Worse than plain SFT"}
    outcome = str(shown["outcome"])
    effect, low, high = (f"{100 * float(shown[name]):+.1f}" for name in ("effect", "low", "high"))
    evidence = f"on {data.verdict['problems']} untouched problems, over {shown['seeds']} fresh training seeds"
    sentence = f"{said.get(outcome, 'Not distinguishable from plain SFT')}: {effect} points [{low}, {high}] {evidence}."
    return tones.get(outcome, "same"), sentence


def _sentences(verdict: Mapping[str, Any] | None) -> list[str]:
    """What stands below the result: all answers, less the first where it says the same."""
    return [] if verdict is None else answers(verdict)[int(found_a_design(verdict)) :]


def _rungs(data: StudyData) -> list[str]:
    """What of a budget in steps is spent, and how each rung ranks beside the end."""
    if data.config is None:
        return []
    found = steps(data.config, data.records)
    return [*([] if found is None else [budget_sentence(found)]), *agreements(data.config, data.records)]


def _is_whole(record: TrialRecord) -> bool:
    """Whether its score is that of its end: not of a rung, nor of the problems before a race was lost."""
    return record.state not in ("pruned", "paused")


def _published(data: StudyData, sheets: Sheets) -> list[dict[str, Any]]:
    """The winner and the published baselines on the search problems, each against plain SFT, paired."""
    if data.sft is None:
        return []
    base = sheets.of(data.sft).scores
    shown = [record for record in data.records if record.score is not None and record.baseline and _is_whole(record)]
    if data.winner is not None and data.winner not in shown:
        shown.append(data.winner)
    ranked = sorted(shown, key=lambda record: -(record.score or 0.0))
    return [
        {
            "record": record,
            "against": None if record is data.sft else paired(sheets.of(record).scores, base, str(record.number)),
        }
        for record in ranked
    ]


def _slices(data: StudyData, sheets: Sheets, shown: Any) -> list[Any]:
    """Accuracy by slice, on the untouched problems where the study is confirmed."""
    ours, theirs = sheets.confirmed() or (sheets.of(data.winner), sheets.of(data.sft))
    return slices(ours, theirs, shown.get("problems"))


def _pairs(record: TrialRecord | None, data: StudyData, sheets: Sheets, most: int) -> list[SideBySide]:
    if record is None or data.sft is None or record.folder == data.sft.folder:
        return []
    return side_by_side(sheets.of(record), sheets.of(data.sft), most)


def _trial(record: TrialRecord, data: StudyData, sheets: Sheets) -> dict[str, Any]:
    against = None
    if data.sft is not None and record.number != data.sft.number and record.score is not None:
        against = paired(sheets.of(record).scores, sheets.of(data.sft).scores, str(record.number))
    return {
        "record": record,
        "result": data.results.get(record.number, {}),
        "against": against,
        "pairs": _pairs(record, data, sheets, TRIAL_PAIRS) if record.same_as is None else [],
        "answers": len(sheets.of(record).answers),
    }


def _scaled(demonstrations: Sequence[Any]) -> list[Any]:
    """Demonstrations with visible texts, each token with `shade`: its trust as a share of the largest of all."""
    most = max((token["gamma"] for token in _tokens(demonstrations)), default=1.0) or 1.0
    for token in _tokens(demonstrations):
        token["text"] = visible(token["text"])
        token["shade"] = round(max(0.0, min(1.0, token["gamma"] / most)), 3)
        for entries in (value for value in token.values() if isinstance(value, list)):
            entries[:] = [[visible(text), share] for text, share in entries]
    return list(demonstrations)


def _tokens(demonstrations: Sequence[Any]) -> Iterator[dict[str, Any]]:
    return (token for each in demonstrations for stage in each["stages"].values() for token in stage)


def _settings(data: StudyData) -> str | None:
    """The study's settings as YAML, passwords hidden."""
    if data.config is None:
        return None
    return redact(yaml.safe_dump(data.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _retention(data: StudyData) -> dict[str, Any] | None:
    """Score and what was forgotten of each trial that has both, and the most that is allowed."""
    found = [record for record in data.records if record.score is not None and record.retention is not None]
    if not found:
        return None
    unbeaten = {record.number for record in front(found)}
    kept = [(record, record.retention or {}) for record in found]
    rows = [
        figures.Kept(
            record,
            float(facts["forgotten"]),
            facts.get("forgotten_standard_error"),
            record.number in unbeaten,
        )
        for record, facts in kept
    ]
    first = kept[0][1]
    return {
        "name": f"forgotten ({first['name']})",
        "unit": str(first["unit"]),
        "limit": first.get("limit"),
        "rows": sorted(rows, key=lambda row: (row.forgotten, row.record.number)),
    }


def _forgotten(verdict: Mapping[str, Any]) -> dict[str, float]:
    """What each confirmed design forgot, mean over seeds, by its title; empty where it is not measured."""
    kept = {str(each["title"]): each.get("retention") for each in verdict.get("candidates", [])}
    return {title: float(found["forgotten"]) for title, found in kept.items() if found}


def _plots(data: StudyData, shown: Any, parts: Sequence[Any]) -> dict[str, str]:
    """SVG by name; what there is nothing to draw of is left out."""
    found: dict[str, str | None] = {}
    if data.verdict is not None:
        rows = sorted(data.verdict["comparisons"], key=lambda row: -float(row["effect"]))
        found["effects"] = figures.effects(rows, "Each design against plain SFT, with intervals")
    if shown.get("curves"):
        found["gamma"] = figures.curves(shown["curves"], "gamma", "Trust γ over p")
        found["target"] = figures.curves(
            shown["curves"], "label_target", "The target's mass on the observed token over p"
        )
    if any(record.score is not None for record in data.records):
        found["history"] = figures.history(data.records)
        found["rungs"] = figures.rungs(data.records, data.results)
    if data.importances:
        names = list(data.importances)[:MOST_IMPORTANCES]
        found["importance"] = figures.importance({name: data.importances[name] for name in names})
        found["parameters"] = figures.parameters(data.records, names[:6])
    if parts:
        found["slices"] = figures.slices(parts)
    kept = _retention(data)
    if kept is not None:
        found["pareto"] = figures.pareto(kept["rows"], kept["name"], kept["unit"], kept["limit"])
    return {name: svg for name, svg in found.items() if svg is not None}
