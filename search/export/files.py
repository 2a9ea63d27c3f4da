"""The files of an export: winner.yaml, the loss, the TRL script, accelerate configurations, model card, provenance."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ... import __version__
from ...spaces import presets
from ...spaces.identity import canonical_id, spec_id
from ...spaces.target import TargetSpec
from ...trainers.run_settings import RunSettings
from ..store.history import TrialRecord
from ..study.config import StudyConfig
from ..study.files import write_atomic, write_json
from ..study.winner_file import FILE, WinnerFile, inputs_of
from ..terminal.tables import winner_sentence
from . import axolotl
from .card import model_card
from .choice import Winner
from .loss import FRAME, loss_source
from .reading import FOLDER as READING
from .reading import reading_files

STACK = ("torch", "transformers", "accelerate", "datasets", "optuna", "peft", "trl")
COPIED = {
    "data.py": "target_data.py",
    "model.py": "target_model.py",
    "trainer.py": "target_trainer.py",
    "trl.py": "train_trl.py",
}
SFT_FILE = "sft.yaml"
ONE_GPU = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "NO",
    "num_machines": 1,
    "num_processes": 1,
}
FSDP = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "FSDP",
    "num_machines": 1,
    "num_processes": 8,
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_offload_params": False,
        "fsdp_cpu_ram_efficient_loading": False,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    },
}
SCALING = """\
# For a longer run: `run.steps` or `run.epochs` sets its length. Warm-up and decay are shares of it and stretch along;
# so does a schedule of the trust. Keep `effective_batch` and `learning_rate`, which were searched together; a batch k
# times as large wants a learning rate about √k times as large under AdamW, and a confirmation of its own. Errors in
# demonstrations are learnt in later epochs: `run.evaluate_every` shows when that begins.
# {epochs}
"""


def write_files(
    folder: Path, config: StudyConfig, winner: Winner, sft: TrialRecord | None, spec: Mapping[str, Any]
) -> None:
    """Write everything but the check into `folder`."""
    folder.mkdir(parents=True)
    content = WinnerFile(
        target=winner.target,
        training=winner.training,
        run=RunSettings(steps=config.full_steps),
        model=config.model,
        teacher=config.teacher,
        cache=config.cache,
        data=config.data,
        evaluation=config.evaluation,
        seed=spec["seed"],
        split_seed=config.search.seed,
        date=config.date,
        base=str(config.base_folder),
    )
    beside = os.path.relpath(config.base_folder, folder.absolute())
    places = {"base": content.base, "beside": beside, "inputs": inputs_of(content)}
    provenance = provenance_of(config, winner, sft, spec) | places
    content = content.model_copy(update={"provenance": provenance})
    note = winner_sentence(winner.best_search, sft)
    title = f"{winner.title}: the target of study {config.study}."
    write_atomic(folder / FILE, render(content, title, note))
    if sft is not None:
        training = config.training.with_knobs(sft.training)
        plain = content.model_copy(update={"target": presets.get("sft"), "training": training})
        write_atomic(folder / SFT_FILE, render(plain, "Plain SFT at its best learning rate, to compare with."))
    write_atomic(folder / "target_loss.py", loss_source(winner.target))
    for name, text in reading_files():
        write_atomic(folder / READING / name, text)
    for name, copy in COPIED.items():
        shutil.copyfile(FRAME.with_name(name), folder / copy)
    for name, text in accelerate_files(winner.training.precision).items():
        write_atomic(folder / name, text)
    for_axolotl = axolotl.axolotl_yaml(content, folder, title)
    if for_axolotl is not None:
        write_atomic(folder / axolotl.FILE, for_axolotl)
        shutil.copyfile(FRAME.with_name("axolotl.py"), folder / axolotl.PLUGIN)
    write_atomic(folder / "MODEL_CARD.md", model_card(content, winner, sft, axolotl=for_axolotl is not None))
    write_json(folder / "provenance.json", provenance)


def accelerate_files(precision: str) -> dict[str, str]:
    """Configurations for `accelerate launch` by file name; the Trainer computes in the precision they name."""
    mixed = {"mixed_precision": "bf16" if precision == "bf16" else "no"}
    files = {"one_gpu.yaml": ONE_GPU, "fsdp_8gpu.yaml": FSDP}
    return {name: yaml.safe_dump({**settings, **mixed}, sort_keys=False) for name, settings in files.items()}


def render(content: WinnerFile, *titles: str) -> str:
    """The text of winner.yaml."""
    training = content.training
    epochs = f"The search trained {training.steps} steps of {training.effective_batch} sequences."
    header = "".join(f"# {title}\n" for title in titles) + SCALING.format(epochs=epochs)
    return header + yaml.safe_dump(content.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def provenance_of(
    config: StudyConfig, winner: Winner, sft: TrialRecord | None, spec: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a winner comes from: study, trial, seeds, content of all inputs, versions, and what was confirmed."""
    record = winner.record
    return {
        "study": config.study,
        "trial": None if record is None else record.number,
        "spec_id": None if record is None else record.spec_id,
        "design": spec_id(winner.target),
        "canonical_design": canonical_id(winner.target),
        "preset": preset_of(winner.target),
        "seed": spec["seed"],
        "fingerprints": spec["fingerprints"],
        "score": None if record is None else record.score,
        "standard_error": None if record is None else record.standard_error,
        "sft_score": None if sft is None else sft.score,
        "confirmation": dict(winner.comparison) if winner.comparison else "not confirmed",
        "qtarget": __version__,
        "python": platform.python_version(),
        "versions": {name: found for name in STACK if (found := _version(name)) is not None},
    }


def preset_of(target: TargetSpec) -> str | None:
    """Name of the published objective that trains the same, if one does."""
    wanted = canonical_id(target)
    return next((name for name in presets.names() if canonical_id(presets.get(name)) == wanted), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
