"""A teacher for `real-pairs.yaml`: a model after some steps of plain SFT on right demonstrations.

    python studies/make_teacher.py MODEL DEMONSTRATIONS FOLDER [--steps N] [--learning-rate R] [--batch N]

MODEL is a folder, DEMONSTRATIONS a file with prompt and completion; the chat template is chatml.jinja of this folder.
Few steps make a weak teacher, many a good one. Trains in bf16, data order by seed 0.
"""

import argparse
import sys
from pathlib import Path

from qtarget.spaces import presets
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.full_run import write_model
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings

TEMPLATE = Path(__file__).with_name("chatml.jinja")
SHARD_GIGABYTES = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("demonstrations", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    settings = ModelSettings(path=str(given.model.absolute()), chat_template=str(TEMPLATE.absolute()))
    resident = ResidentModel(settings, Path(), precision="bf16")
    data = load_demonstrations(DataSettings(path=str(given.demonstrations.absolute())), resident.tokenizer, Path())
    resident.meet(data, chat=True)
    training = TrainingSettings(
        steps=given.steps, effective_batch=given.batch, micro_batch=given.batch, learning_rate=given.learning_rate,
        precision="bf16", checkpoint_every=given.steps,
    )  # fmt: skip
    model, seed = resident.fresh(), derive_seed("teacher", 0)
    outcome = train(
        model, data, presets.get("sft"), training, seed=seed, folder=None, pad_token_id=resident.pad_token_id
    )
    write_model(model, resident.tokenizer, given.folder, SHARD_GIGABYTES)
    print(f"{given.folder}: {outcome.step} steps of plain SFT on {len(data)} demonstrations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
