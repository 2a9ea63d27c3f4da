"""The computing half of `qtarget export`: the exported loss against the trial's own, on a real batch.

Started as `python -m qtarget.search.engine_export FOLDER`; reports progress and, last, the differences.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..trainers.data import load_demonstrations
from ..trainers.resident import ResidentModel, needs_frozen_copy
from ..trainers.standalone_check import compare
from .engine import classify
from .engine_channel import Channel, die_with_parent
from .winner_file import load_winner


def main(folder: Path) -> None:
    die_with_parent()
    channel = Channel()
    try:
        winner = load_winner(folder)
        needs, lora, base = winner.target.needs, winner.training.lora, winner.base_folder
        channel.send("progress", phase="models and data", done=0, total=2)
        resident = ResidentModel(
            winner.model,
            base,
            precision="fp32",
            reference=needs_frozen_copy(needs, lora),
            teacher=winner.teacher if "teacher" in needs else None,
        )
        data = load_demonstrations(winner.data, resident.tokenizer, base)
        channel.send("progress", phase="models and data", done=1, total=2)
        model = resident.fresh(lora, seed=winner.seed)
        found = compare(
            folder / "target_loss.py",
            model,
            data,
            winner.target,
            winner.training,
            seed=winner.seed,
            reference=resident.reference() if "reference" in needs else None,
            teacher=resident.teacher,
            pad_token_id=resident.pad_token_id,
            real_vocab=resident.real_vocab,
        )
        channel.send("checked", examples=len(data), **found)
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
