"""A confirmed study for reports: real storage and folders, scripted engines, answers written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_once
from scripted_study import scripted
from small_study import small_config

from qtarget.search.confirmation.candidates import candidates
from qtarget.search.loop.confirm import conclude, confirmation_config
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import parse_study

SCORES = {"0": 0.25, "1": 0.125, "2": 0.75, "3": 0.5}
"""By trial: sft, dft, and two points of the space."""
HOSTILE = (
    "</pre><script>alert(1)</script>\x1b[31mred\x1b[0m \u202egnp.exe <img src=x onerror=alert(2)> | a `b` {{ 7*7 }}"
)
PROBLEMS = 16
SHORT = {"seeds": 4, "longer_seeds": 2}
"""A confirmation of few trainings."""


def write_answers(file: Path, share: float, problems: int = PROBLEMS, prefix: str = "search") -> None:
    """An items file in which the first `share` of the problems are answered right; the last answer is hostile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(problems):
        correct = number < round(share * problems)
        lines.append(
            {
                "problem": f"{prefix}-{number:03d}",
                "task": "even" if number % 2 == 0 else "odd",
                "sample": 0,
                "prompt": f"What is {number} + {number}?",
                "completion": f"It is {2 * number}." if correct else HOSTILE if number == problems - 1 else "No idea.",
                "gold": str(2 * number),
                "answer": str(2 * number) if correct else None,
                "verdict": "correct" if correct else "no_answer",
                "detail": "",
                "finish": "end",
                "tokens": 7,
                "seconds": 0.01,
                "sampling": "same",
            }
        )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def study(root: Path, **changes: Any) -> StudyConfig:
    """Its settings; `changes` replace top-level keys."""
    evaluation = {**small_config()["evaluation"], "report_problems": 16}
    settings = {"tracking": {"uri": "none"}, "evaluation": evaluation, "confirmation": SHORT, **changes}
    return parse_study(small_config(**settings) | {"base": str(root)})


def searched(root: Path, script: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
    """A finished search of four trials."""
    config = study(root, **changes)
    if script or changes:
        search(config, script)
    else:
        made_once.folder("searched", lambda place: search(study(place)), root)
    return config


def search(config: StudyConfig, script: dict[str, Any] | None = None, trials: int | None = None) -> None:
    """Run the search of a study, and write its answers."""
    config.study_folder.mkdir(parents=True, exist_ok=True)
    (config.study_folder / "script.json").write_text(json.dumps({"scores": SCORES, **(script or {})}))
    run_study(config, launch=scripted, trials=trials)
    for record in load_history(config):
        if record.score is not None and record.same_as is None:
            write_answers(record.folder / "items.jsonl", record.score)


def confirmed(root: Path) -> StudyConfig:
    """The same, with a finished confirmation in which the best design wins."""
    made_once.folder("confirmed", lambda place: confirm(searched(place)), root)
    return study(root)


def confirm(config: StudyConfig) -> None:
    """Run the confirmation of a searched study; trial 2 wins."""
    chosen = candidates(config, load_history(config))
    shares = {each.title: 0.25 if each.role == "sft" else 0.75 if each.trial == 2 else 0.5 for each in chosen}
    targets = {json.dumps(each.target.model_dump(mode="json"), sort_keys=True): shares[each.title] for each in chosen}
    confirmation = confirmation_config(config, chosen)
    confirmation.study_folder.mkdir(parents=True, exist_ok=True)
    script = {"items": True, "by_target": {**targets, "other": 0.5}}
    (confirmation.study_folder / "script.json").write_text(json.dumps(script))
    run_study(confirmation, launch=scripted)
    for record in load_history(confirmation):
        write_answers(record.folder / "items.jsonl", record.score or 0.0, prefix="report")
    conclude(confirmation)
