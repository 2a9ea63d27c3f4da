"""What `qtarget export` computes: the exported loss against the trial's own, on a real batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...trainers.data.load import load_demonstrations
from ...trainers.loop.resident import ResidentModel, needs_frozen_copy
from ...trainers.models.load import load_model, model_fingerprint
from ...trainers.standalone.check import compare
from ...trainers.teachers.sources import LabelColumn
from ..study.winner_file import WinnerFile, against_search, load_winner
from .channel import Channel


def _models(winner: WinnerFile, resident: ResidentModel) -> dict[str, str]:
    """Fingerprints of the models as the search loaded them."""
    precision, base = winner.training.precision, winner.base_folder
    if precision == "fp32":  # as they are loaded here
        found = {"model": resident.fingerprint, "teacher": resident.teacher_fingerprint}
    else:
        teacher = None if resident.teacher is None else winner.teacher
        found = {
            name: None if settings is None else model_fingerprint(load_model(settings, base, precision, field=name))
            for name, settings in (("model", winner.model), ("teacher", teacher))
        }
    cached = winner.cache is not None  # then the search knew the teacher by its answers
    return {name: each for name, each in found.items() if each is not None and not (cached and name == "teacher")}


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Relative differences in value and gradient between the loss file in `request["folder"]` and the trial's loss.

    Raises UserError when model or data are no longer those of the search.
    """
    folder = Path(request["folder"])
    winner = load_winner(folder)
    needs, lora, base = winner.target.needs - winner.in_data, winner.training.lora, winner.base_folder
    anchored = "reference" in winner.target.needs
    channel.send("progress", phase="models and data", done=0, total=2)
    resident = ResidentModel(
        winner.model,
        base,
        precision="fp32",
        reference=needs_frozen_copy(needs, lora),
        teacher=winner.teacher if "teacher" in needs else None,
    )
    data = load_demonstrations(winner.data, resident.tokenizer, base, day=winner.date)
    against_search(winner, {"data": data.fingerprint, **_models(winner, resident)}, "an export")
    channel.send("progress", phase="models and data", done=1, total=2)
    found = compare(
        folder / "target_loss.py",
        resident.fresh(lora, seed=winner.seed),
        data,
        winner.target,
        winner.training,
        seed=winner.seed,
        reference=None if not anchored else resident.reference() if "reference" in needs else LabelColumn(),
        teacher=resident.teacher,
        pad_token_id=resident.pad_token_id,
        real_vocab=resident.real_vocab,
    )
    return {"examples": len(data), **found}
