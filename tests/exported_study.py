"""A finished study with real models and data whose engine was scripted, its confirmation, and its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from raced_tables import confirm
from rich.console import Console
from scripted_study import scripted
from small_study import small_config, write_small_study

from qtarget.search.export.write import export_winner
from qtarget.search.loop.supervisor import run_study
from qtarget.search.store.history import load_history
from qtarget.search.study.config import StudyConfig
from qtarget.search.study.config_file import load_study
from qtarget.search.study.files import write_json
from qtarget.spaces import presets
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.load import load_model, load_tokenizer, model_fingerprint

BASELINES = ["sft", "dft", {"preset": "target_sft", "training": {"learning_rate": 0.02}}]
SCORES = {"0": 0.2, "1": 0.7, "2": 0.6}
CONSOLE = Console(quiet=True)


def finished_study(folder: Path, script: dict[str, Any]) -> Path:
    search = {**small_config()["search"], "trials": 3, "pruner": "none"}
    study = write_small_study(folder, baselines=BASELINES, search=search)
    config = load_study(study)
    config.study_folder.mkdir(parents=True)
    write_json(config.study_folder / "script.json", {**script, "fingerprints": fingerprints(config)})
    run_study(config, launch=scripted)
    return study


def fingerprints(config: StudyConfig) -> dict[str, str]:
    """Of the study's real model and data, as its engine would have found them."""
    base, tokenizer = config.base_folder, load_tokenizer(config.model, config.base_folder)
    models = {name: getattr(config, name) for name in ("model", "teacher")}
    found = {name: model_fingerprint(load_model(each, base, "fp32")) for name, each in models.items()}
    return {**found, "data": load_demonstrations(config.data, tokenizer, base).fingerprint}


def verdict_of(config: StudyConfig, scores: dict[str, float]) -> None:
    """A confirmation of the trials titled as in `scores`, with these mean scores; Target-SFT is the published one."""
    generator = np.random.default_rng(0)
    tables = {title: generator.random((60, 4)) < score for title, score in {"sft": 0.3, **scores}.items()}
    found = confirm(tables.pop("sft"), tables, generator)
    records = {f"trial {record.number}: {record.title}": record for record in load_history(config)}
    candidates = [
        {"title": title, "target": records[title].target.model_dump(mode="json"), "training": records[title].training,
         "role": "published" if records[title].baseline == "target_sft" else "design"} for title in tables
    ]  # fmt: skip
    sft = {"title": "sft", "role": "sft", "target": presets.get("sft").model_dump(mode="json"), "training": {}}
    write_json(
        config.study_folder / "confirmation-x" / "confirmation.json",
        {"candidates": [sft, *candidates], **found.as_dict()},
    )


def titles(config: StudyConfig) -> dict[int, str]:
    return {record.number: f"trial {record.number}: {record.title}" for record in load_history(config)}


def export(study: Path, folder: Path, **options: Any) -> dict[str, Any]:
    return export_winner(study, folder, CONSOLE, **options)
