"""Trains an exported design with TRL and without qtarget: `train_trl.py` of an export, beside `target_loss.py`.

    accelerate launch --config_file one_gpu.yaml train_trl.py --out model
    accelerate launch --config_file fsdp_8gpu.yaml train_trl.py --out model --steps 2000

Model, data, target and settings are read from `winner.yaml` in the same folder. The data are rendered, ordered and
divided into optimiser steps as in the search, whatever the number of GPUs; a step's loss is divided once, by what the
design divides by (`num_items_in_batch`: the tokens of all micro-batches of all ranks).
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from target_data import base_folder, collate, demonstrations, num_steps
from target_model import adapters, load_model, load_tokenizer, pad_token, save
from target_trainer import TargetTrainer, fsdp_of
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).parent
NAMES = {field.name for field in fields(SFTConfig)}
RECOMPUTE = "activation_checkpointing" if "activation_checkpointing" in NAMES else "gradient_checkpointing"
"""The argument's name, which transformers 5.23 changed; an export meets whatever version is there."""


class TrlTrainer(TargetTrainer, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is that of `target_loss.py`."""

    def __init__(self, winner: dict[str, Any], base: Path, steps: int, **options: Any) -> None:
        super().__init__(**options)
        self.follow(winner, base, steps)


def build(folder: Path, out: Path, *, steps: int | None = None, base: Path | None = None, **options: Any) -> TrlTrainer:
    """The trainer of an exported design; `options` go to SFTConfig."""
    winner = yaml.safe_load((folder / "winner.yaml").read_text("utf-8"))
    training, base = winner["training"], base or base_folder(winner, folder)
    on_cpu = not torch.accelerator.is_available()  # unsaid, ranks on CPUs would each train alone
    ranks, lora = PartialState(cpu=on_cpu).num_processes, training.get("lora")
    share, left = divmod(training["effective_batch"], ranks)
    if left:
        raise ValueError(
            f"`effective_batch` must be a multiple of the number of ranks, but got {training['effective_batch']} for "
            f"{ranks}; start another number, or change `training` in winner.yaml"
        )
    micro_batch = max(size for size in range(1, training["micro_batch"] + 1) if share % size == 0)
    set_seed(winner["seed"] % 2**32)  # new adapters are drawn before the Trainer sets its seed
    model, tokenizer = load_model(winner["model"], base), load_tokenizer(winner["model"], base)
    pad, rows = pad_token(model, tokenizer), demonstrations(winner["data"], tokenizer, base, winner.get("date"))
    steps = steps or num_steps(winner, len(rows))
    arguments: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": on_cpu,
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": share // micro_batch,
        "learning_rate": training["learning_rate"],
        "weight_decay": training["weight_decay"],
        "adam_beta1": training["adam_betas"][0],
        "adam_beta2": training["adam_betas"][1],
        "max_grad_norm": training["clip_norm"] or 0.0,
        "bf16": training["precision"] == "bf16",
        RECOMPUTE: False,
        "save_steps": training["checkpoint_every"],
        "save_total_limit": 2,
        "seed": winner["seed"] % 2**32,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
    }
    return TrlTrainer(
        winner,
        base,
        steps,
        model=model,
        args=SFTConfig(**(arguments | options)),
        data_collator=lambda rows: collate(rows, pad),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=adapters(model, lora) if lora else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "model", help="folder of checkpoints and final weights")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of winner.yaml's")
    parser.add_argument("--base", type=Path, help="folder that relative paths start from, instead of winner.yaml's")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations instead of keeping them")
    given = parser.parse_args()
    trainer = build(HERE, given.out, steps=given.steps, base=given.base, **{RECOMPUTE: given.checkpointing})
    trainer.train(resume_from_checkpoint=given.resume or None)
    if (sharded := fsdp_of(trainer.accelerator)) is not None:  # as its checkpoints; without this no model is written
        sharded.set_state_dict_type("FULL_STATE_DICT")
    save(trainer, trainer.winner, trainer.base, given.out)


if __name__ == "__main__":
    main()
