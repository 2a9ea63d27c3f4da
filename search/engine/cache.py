"""The caches of a study: built once from teacher and reference, and what they lose against the live models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ...spaces import presets
from ...spaces.identity import content_id, derive_seed
from ...trainers.data.demonstrations import Demonstrations
from ...trainers.data.load import load_demonstrations
from ...trainers.loop.resident import ResidentModel
from ...trainers.loop.sft import train
from ...trainers.settings import CacheSettings, ModelSettings, TrainingSettings
from ...trainers.teachers.bias import CacheBias
from ...trainers.teachers.cache import TeacherCache
from ...trainers.teachers.cached import CachedModels
from ..study.config import StudyConfig
from ..study.config_file import load_study
from ..study.files import BIAS_FILE, read_json, write_json
from .channel import Channel

STEPS = 8
"""Steps of plain SFT between the base and the student: the base's own tail is that of its reference, without bias."""


def study_caches(
    config: StudyConfig, data: Demonstrations, tokenizer: PreTrainedTokenizerBase
) -> tuple[CachedModels, dict[str, ModelSettings]]:
    """The caches of a study, and which models its designs ask: role to model."""
    caches = CachedModels(
        data,
        config.data,
        tokenizer,
        config.base_folder,
        settings=config.cache or CacheSettings(),
        precision=config.training.precision,
    )
    roles = {"reference": config.model, "teacher": config.teacher}
    asked = config.needs - config.in_data
    return caches, {role: model for role, model in roles.items() if model is not None and role in asked}


def cache_bias(config: StudyConfig, resident: ResidentModel, data: Demonstrations) -> dict[str, Any] | None:
    """The bias of each cache of the study; measured unless the study's folder holds that of these very caches.

    Builds the caches that are missing. Ends the life of the model that `resident` gave last. None where a confirmation
    asks: its caches are those of its search.
    """
    caches, roles = study_caches(config, data, resident.tokenizer)
    roles = {role: model for role, model in roles.items() if role in config.needs_rows}  # labels alone lose nothing
    if config.candidates or not roles:
        return None
    opened = {role: caches.open_or_build(model, device=resident.device).cache for role, model in roles.items()}
    training = config.training.model_copy(update={"steps": STEPS, "warmup_fraction": 0.0, "decay": "constant"})
    settings = {"student": resident.fingerprint, "training": training.model_dump(mode="json")}
    measured = content_id(settings | {role: cache.manifest.key.id for role, cache in opened.items()})
    path = config.study_folder / BIAS_FILE
    known = read_json(path)
    if known is not None and known["id"] == measured:
        return known
    student = _student(config, training, resident, data)
    biases = {role: caches.bias(model, student, device=resident.device) for role, model in roles.items()}
    found = {
        "id": measured,
        "student": f"the base after {STEPS} steps of plain SFT",
        "roles": {role: _facts(opened[role], bias) for role, bias in biases.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def _student(
    config: StudyConfig, training: TrainingSettings, resident: ResidentModel, data: Demonstrations
) -> nn.Module:
    seed = derive_seed("cache bias", config.search.seed)
    student = resident.fresh(training.lora, seed=seed)
    pad, real = resident.pad_token_id, resident.real_vocab
    train(student, data, presets.get("sft"), training, seed=seed, folder=None, pad_token_id=pad, real_vocab=real)
    return student


def _facts(cache: TeacherCache, bias: CacheBias) -> dict[str, Any]:
    manifest = cache.manifest
    return dataclasses.asdict(bias) | {
        "cache": str(cache.folder),
        "bytes_per_token": manifest.bytes_per_token,
        "entries_per_token": manifest.entries_per_token,
        "tail_mass": manifest.mean_tail_mass,
    }


def build(config: StudyConfig, channel: Channel) -> dict[str, Any]:
    """Build, continue or repair the caches of a study, role to folder; and what they lose."""
    base = config.base_folder
    resident = ResidentModel(config.model, base, precision=config.training.precision)
    data = load_demonstrations(config.data, resident.tokenizer, base, day=config.date)
    caches, roles = study_caches(config, data, resident.tokenizer)
    folders = {}
    for role, model in roles.items():

        def report(done: int, total: int, role: str = role) -> None:
            channel.send("progress", phase=f"{role} cache", done=done, total=total)

        rows = role in config.needs_rows
        found = caches.open_or_build(model, rows=rows, device=resident.device, on_progress=report)
        folders[role] = str(found.cache.folder)
    return {"folders": folders, "bias": cache_bias(config, resident, data)}


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Folders of the caches of the study file `request["study"]`, and their bias."""
    return build(load_study(Path(request["study"])), channel)
