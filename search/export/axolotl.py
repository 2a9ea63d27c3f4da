"""`axolotl.yaml` of an export: the design's training as axolotl's configuration, beside the plugin that it names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ...trainers.settings import LoraSettings, TrainingSettings
from ..study.winner_file import WinnerFile

FILE, PLUGIN = "axolotl.yaml", "target_axolotl.py"
HEADER = """\
# {title}
# Run it in this folder with axolotl 0.19:   PYTHONPATH=. axolotl train axolotl.yaml
# The plugin reads demonstrations, their order, the schedule of the learning rate, the loss and the length of the run
# from winner.yaml; `max_steps` here goes before `run` there. axolotl asks for `datasets`, but does not read it. On
# several GPUs divide `gradient_accumulation_steps` by their number.{precision}
"""
IN_BF16 = " `bf16: false` keeps the weights in float32; the plugin lets bf16 compute."


def axolotl_yaml(content: WinnerFile, folder: Path, title: str) -> str | None:
    """The configuration in `folder`; None where axolotl cannot load the model: a GGUF file, or tokens to add."""
    model, training = content.model, content.training
    if model.gguf_file or model.path.endswith(".gguf") or model.add_tokens:
        return None
    local = content.base_folder / Path(model.path).expanduser()
    settings = {
        "base_model": os.path.relpath(local, folder.absolute()) if local.exists() else model.path,
        "revision_of_model": model.revision,
        "trust_remote_code": model.trust_remote_code or None,
        "plugins": [f"{PLUGIN.removesuffix('.py')}.TargetPlugin"],
        "datasets": [{"path": str(path), "type": "completion"} for path in content.data.paths],
        "sequence_len": content.data.max_length,
        "output_dir": "model",
        **_optimisation(training),
        **({} if training.lora is None else _adapters(training.lora)),
        "seed": content.seed % 2**32,
        "bf16": False,
        "save_steps": training.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
    }
    kept = {name: value for name, value in settings.items() if value is not None}
    precision = IN_BF16 if training.precision == "bf16" else ""
    return HEADER.format(title=title, precision=precision) + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _optimisation(training: TrainingSettings) -> dict[str, Any]:
    return {
        "micro_batch_size": training.micro_batch,
        "gradient_accumulation_steps": training.effective_batch // training.micro_batch,
        "optimizer": "adamw_torch",
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_betas[0],
        "adam_beta2": training.adam_betas[1],
        "max_grad_norm": training.clip_norm,
    }


def _adapters(lora: LoraSettings) -> dict[str, Any]:
    every = lora.target_modules == "all-linear"
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return {
        "adapter": "lora",
        "lora_r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        **({"lora_target_linear": True} if every else {"lora_target_modules": targets}),
        "lora_modules_to_save": list(lora.modules_to_save) or None,
    }
