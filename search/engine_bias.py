"""What a study's caches lose against the live models, measured once a study for a student on its way."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ..spaces import presets
from ..spaces.identity import content_id, derive_seed
from ..trainers.cache import TeacherCache
from ..trainers.cache_bias import CacheBias
from ..trainers.cache_source import CachedModels
from ..trainers.demonstrations import Demonstrations
from ..trainers.resident import ResidentModel
from ..trainers.settings import CacheSettings, ModelSettings, TrainingSettings
from ..trainers.sft import train
from .cache_commands import BIAS_FILE
from .config import StudyConfig
from .trial import read_json, write_json

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
    return caches, {role: model for role, model in roles.items() if model is not None and role in config.needs}


def cache_bias(config: StudyConfig, resident: ResidentModel, data: Demonstrations) -> dict[str, Any] | None:
    """The bias of each cache of the study; measured unless the study's folder holds that of these very caches.

    Builds the caches that are missing. Ends the life of the model that `resident` gave last. None where a confirmation
    asks: its caches are those of its search.
    """
    caches, roles = study_caches(config, data, resident.tokenizer)
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
