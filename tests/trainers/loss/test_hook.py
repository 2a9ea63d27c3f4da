"""`compute_loss_func` in real trainers: one optimiser step, in whatever micro-batches, is a step of our own loss."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import trl
from datasets import Dataset
from tiny_llama import character_tokenizer, tiny_llama

from qtarget import compute_loss_func
from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.loss import dense_target_loss

ROWS = [[4, 5, 6, 7, 8, 9, 10, 2], [11, 12, 13, 2], [14, 15, 16, 17, 18, 2], [19, 20, 21, 22, 23, 24, 2]]
PROMPT = 2
"""Tokens of each row that are not learnt; the rows differ in how many are."""
RATE = 0.5
NAMES = {field.name for field in fields(trl.SFTConfig)}
RECOMPUTE = "activation_checkpointing" if "activation_checkpointing" in NAMES else "gradient_checkpointing"
"""The argument's name, which transformers 5.23 changed."""
VOCAB = len(character_tokenizer())


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows padded on the right, prompts and padding without a label."""
    longest = max(len(row["input_ids"]) for row in rows)
    padded = [[*row["input_ids"], *[0] * (longest - len(row["input_ids"]))] for row in rows]
    labels = [[-100] * PROMPT + ids[PROMPT:] for ids in padded]
    ids = torch.tensor(padded)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.tensor(labels).masked_fill(ids == 0, -100),
    }


def student() -> Any:
    return tiny_llama(1, VOCAB, num_hidden_layers=1, initializer_range=0.1)


def teacher() -> Any:
    return tiny_llama(2, VOCAB, num_hidden_layers=1, initializer_range=0.1)


def expected_step(spec: Any) -> dict[str, torch.Tensor]:
    """What one step of plain gradient descent on all rows together subtracts from each weight."""
    model, batch = student(), collate([{"input_ids": row} for row in ROWS])
    labels = batch.pop("labels")[:, 1:].flatten()
    with torch.no_grad():
        other = teacher()(**batch).logits[:, :-1].flatten(0, 1)
    logits = model(**batch).logits[:, :-1].flatten(0, 1)
    (dense_target_loss(logits, labels, spec, teacher_logits=other) / (labels != -100).sum()).backward()
    return {name: RATE * each.grad for name, each in model.named_parameters() if each.grad is not None}


def options(folder: Path, micro: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "use_cpu": True, "report_to": [], "max_steps": 1, "max_grad_norm": 0.0,
        "per_device_train_batch_size": micro, "gradient_accumulation_steps": len(ROWS) // micro,
        "lr_scheduler_type": "constant", "save_strategy": "no", "disable_tqdm": True, "bf16": False,
    }  # fmt: skip


def hooked(spec: Any, model: Any) -> Any:
    return compute_loss_func(spec, model=model, teacher=teacher() if "teacher" in spec.needs else None)


def of_transformers(folder: Path, micro: int, spec: Any) -> Any:
    model = student()
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**options(folder, micro), remove_unused_columns=False),
        train_dataset=Dataset.from_dict({"input_ids": ROWS}),
        data_collator=collate,
        optimizers=(torch.optim.SGD(model.parameters(), lr=RATE), None),  # type: ignore[arg-type]
        compute_loss_func=hooked(spec, model),
    )


def of_trl(folder: Path, micro: int, spec: Any) -> Any:
    model = student()
    masks = [[0] * PROMPT + [1] * (len(row) - PROMPT) for row in ROWS]
    return trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**options(folder, micro), **{RECOMPUTE: False}, max_length=None, completion_only_loss=True),
        train_dataset=Dataset.from_dict({"input_ids": ROWS, "completion_mask": masks}),
        processing_class=character_tokenizer(),
        optimizers=(torch.optim.SGD(model.parameters(), lr=RATE), None),  # type: ignore[arg-type]
        compute_loss_func=hooked(spec, model),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`compute_loss_func` is deprecated:FutureWarning")  # until TRL 2 drops it
@pytest.mark.parametrize("trainer", [of_transformers, of_trl])
@pytest.mark.parametrize(("preset", "micro"), [("dft", 1), ("dft", 4), ("kd", 2)])
def test_a_step_is_ours_however_it_is_divided(tmp_path, trainer, preset, micro):
    spec = presets.get(preset)
    built = trainer(tmp_path, micro, spec)
    before = {name: each.detach().clone() for name, each in built.model.named_parameters()}
    built.train()
    after = dict(built.model.named_parameters())
    expected = expected_step(spec)
    assert len(expected) > 8
    for name, step in expected.items():
        torch.testing.assert_close(before[name] - after[name], step, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        ("kd", {}, "needs teacher; pass `teacher=`"),
        ("psft", {}, "needs old_logprobs; use `qtarget.TargetLoss`"),
        ("cft", {}, "needs critical"),
    ],
)
def test_what_a_trainer_cannot_give_is_refused(preset, given, said):
    with pytest.raises(UserError, match=said):
        compute_loss_func(preset, **given)


def test_a_teacher_needs_the_model_whose_inputs_it_reads():
    with pytest.raises(UserError, match="`model` must be given with teacher"):
        compute_loss_func("kd", teacher=teacher())
