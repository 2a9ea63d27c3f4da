"""What `qtarget export` computes: the exported loss against the trial's own, on a real batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...trainers.data.load import load_demonstrations
from ...trainers.loop.resident import ResidentModel, needs_frozen_copy
from ...trainers.standalone.check import compare
from ..study.winner_file import load_winner
from .channel import Channel


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Relative differences in value and gradient between the loss file in `request["folder"]` and the trial's loss."""
    folder = Path(request["folder"])
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
    found = compare(
        folder / "target_loss.py",
        resident.fresh(lora, seed=winner.seed),
        data,
        winner.target,
        winner.training,
        seed=winner.seed,
        reference=resident.reference() if "reference" in needs else None,
        teacher=resident.teacher,
        pad_token_id=resident.pad_token_id,
        real_vocab=resident.real_vocab,
    )
    return {"examples": len(data), **found}
