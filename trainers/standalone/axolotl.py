"""Trains an exported design with axolotl and without qtarget: a plugin, `target_axolotl.py` of an export.

    cd EXPORT && PYTHONPATH=. axolotl train axolotl.yaml

axolotl loads the model, its adapters and the optimiser as `axolotl.yaml` says. Data, their order, the schedule of the
learning rate and the loss are those of the search; the plugin reads them from `winner.yaml` in the same folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from axolotl.common.datasets import TrainDatasetMeta
from axolotl.core.trainers import AxolotlTrainer
from axolotl.integrations.base import BasePlugin
from target_data import base_folder, collate, demonstrations, num_steps
from target_model import base_of, load_tokenizer, settled, source
from target_trainer import TargetTrainer
from torch import Tensor

HERE = Path(__file__).parent
REFUSED = ("sample_packing", "streaming", "pretraining_dataset", "rl", "val_set_size", "test_datasets")
"""Settings of axolotl that change what a row of a batch is."""


def read_winner() -> tuple[dict[str, Any], Path]:
    """The design's `winner.yaml`, and the folder that its relative paths start from."""
    winner: dict[str, Any] = yaml.safe_load((HERE / "winner.yaml").read_text("utf-8"))
    return winner, base_folder(winner, HERE)


class AxolotlTargetTrainer(TargetTrainer, AxolotlTrainer):  # type: ignore[misc]
    """AxolotlTrainer whose loss is that of `target_loss.py`."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        (winner, base), args = read_winner(), self.args
        found = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        wanted = winner["training"]["effective_batch"]
        if found != wanted:
            print(f"look at    a step takes {found} sequences, but {wanted} in the search, where the rate was found")
            winner["training"]["effective_batch"] = found
        self.follow(winner, base, args.max_steps)


class Collator:
    """Batches with every column that a design looks at."""

    def __init__(self, tokenizer: Any, **_: Any) -> None:
        self.pad = tokenizer.pad_token_id or 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = collate(rows, self.pad)
        return batch


class TargetPlugin(BasePlugin):  # type: ignore[misc]
    """Puts data, schedule and loss of an exported design in the place of axolotl's own."""

    def register(self, cfg: Any) -> None:
        """Raises ValueError for settings that the loss cannot follow."""
        found = [name for name in REFUSED if cfg.get(name)]
        if found:
            raise ValueError(f"the plugin reads data and makes batches itself; take out of axolotl.yaml: {found}")
        winner, base = read_winner()
        if str(cfg["base_model"]).startswith("."):  # seen from a folder that may have moved since
            cfg["base_model"] = source(winner["model"], base)[0]

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> Any:
        """Demonstrations, and as many steps as `winner.yaml` asks for, in steps of axolotl's size, or `max_steps`."""
        winner, base = read_winner()
        rows = demonstrations(winner["data"], load_tokenizer(winner["model"], base), base, winner.get("date"))
        winner["training"]["effective_batch"] = cfg.batch_size or winner["training"]["effective_batch"]
        return TrainDatasetMeta(rows, None, cfg.max_steps or num_steps(winner, len(rows)))

    def get_trainer_cls(self, cfg: Any) -> Any:
        return AxolotlTargetTrainer

    def get_collator_cls_and_kwargs(self, cfg: Any, is_eval: bool = False) -> Any:
        return Collator, {}

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Weights stay in float32 and bf16 computes, as in the search; without a limit gradients are not clipped."""
        unclipped = {} if cfg.max_grad_norm else {"max_grad_norm": 0.0}
        in_bf16 = read_winner()[0]["training"]["precision"] == "bf16"
        return {"bf16": in_bf16, "remove_unused_columns": False, "include_tkps": False, **unclipped}

    def post_train(self, cfg: Any, model: Any) -> None:
        """Let the saved model end its answers where the training ended them."""
        if int(os.environ.get("RANK", "0")) == 0:
            winner, base = read_winner()
            tokenizer = settled(base_of(model), load_tokenizer(winner["model"], base), winner)
            tokenizer.save_pretrained(cfg.output_dir)
            base_of(model).generation_config.save_pretrained(cfg.output_dir)
