"""Run by torchrun on two gloo ranks: fine-tunes of a replicated and of a sharded model, whole and resumed.

Arguments: folder with base/ and sums.jsonl, and the training settings. Leaves in the folder, for each fine-tune and
rank, its reports, and from rank 0 the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from qtarget.evaluation.generation.batched import generate
from qtarget.evaluation.generation.completions import Request, Sampling
from qtarget.spaces import TargetSpec, presets
from qtarget.spaces.errors import UserError
from qtarget.spaces.gamma.confidence import Constant
from qtarget.spaces.residual import Previous
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.ranks import gathered, is_sharded, whole
from qtarget.trainers.settings import DataSettings, LoraSettings, ModelSettings, TrainingSettings

BASE = ModelSettings(path="base")
GREEDY = Sampling(max_new_tokens=6, end_tokens=frozenset())


class Runs:
    """Fine-tunes of one resident model, reset in between."""

    def __init__(self, folder: Path, *, sharded: bool) -> None:
        self.folder, self.sharded = folder, sharded
        self.rank = PartialState(cpu=True).process_index
        assert PartialState().num_processes == 2
        self.resident = ResidentModel(
            BASE, folder, reference=True, teacher=ModelSettings(path="teacher"), sharded=sharded
        )
        with PartialState().main_process_first():
            self.data = load_demonstrations(
                DataSettings(path="sums.jsonl", max_length=64), self.resident.tokenizer, folder
            )

    def run(self, name: str, target: TargetSpec, settings: TrainingSettings, stop_at: int | None = None) -> None:
        model = self.resident.fresh(settings.lora, seed=5)
        assert any(is_sharded(parameter) for parameter in model.parameters()) is self.sharded
        losses: list[float] = []

        def on_step(report: Any) -> bool:
            losses.append(report.loss)
            return self.rank == 1 and report.step == stop_at  # only the second rank wants to stop

        name = f"{'fsdp' if self.sharded else 'ddp'}-{name}"
        outcome = train(
            model,
            self.data,
            target,
            settings,
            seed=3,
            pad_token_id=self.resident.pad_token_id,
            folder=self.folder / name.removesuffix("-resumed"),
            teacher=self.resident.teacher if "teacher" in target.needs else None,
            reference=self.resident.reference() if "reference" in target.needs else None,
            on_step=on_step,
        )
        with gathered(model):
            said = [each.tokens for each in generate(model, self.resident.tokenizer, self.requests(), GREEDY)]
        report = {"status": outcome.status, "step": outcome.step, "losses": losses, "said": said}
        (self.folder / f"{name}-{self.rank}.json").write_text(json.dumps(report))
        self.save(model, name)

    def requests(self) -> list[Request]:
        """One for the first rank, two for the second: they need each other no more."""
        return [Request(index, tuple(range(4, 8 + index))) for index in range(1 + self.rank)]

    def save(self, model: torch.nn.Module, name: str) -> None:
        trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        weights = {n: whole(p) for n, p in trained.items()}
        if self.rank == 0:
            save_file({n: p.contiguous() for n, p in weights.items()}, self.folder / f"{name}.safetensors")


def main(folder: Path, settings: TrainingSettings) -> None:
    lora = settings.model_copy(update={"lora": LoraSettings(rank=4, alpha=8.0)})
    for sharded in (False, True):
        runs = Runs(folder, sharded=sharded)
        for preset in ("asft", "kd", "psft", "talr"):
            runs.run(preset, presets.get(preset), settings)
        runs.run("stopped", presets.get("psft"), settings, stop_at=2)
        runs.run("stopped-resumed", presets.get("psft"), settings)
        runs.run("lora", presets.get("asft"), lora)
    try:
        runs.run("previous", TargetSpec(gamma=Constant(value=0.5), residual=Previous()), settings)
    except UserError as error:
        (folder / f"refused-{runs.rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), TrainingSettings.model_validate_json(sys.argv[2]))
