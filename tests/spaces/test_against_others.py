"""Presets against code we did not write: TRL's trainer on a tiny model, transformers' label smoother."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import tiny_llama
from torch import Tensor
from transformers.trainer_pt_utils import LabelSmoother

from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss.dense import dense_target_loss

VOCAB = 32
GENERATOR = torch.Generator().manual_seed(20)
TOKENS = torch.randint(3, VOCAB, (4, 24), generator=GENERATOR)
LABELS = torch.where(torch.arange(24) < torch.tensor([[5], [9], [1], [20]]), -100, TOKENS)
VALID = int((LABELS[:, 1:] >= 0).sum())


def parameter_gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def ours(model: torch.nn.Module, spec: TargetSpec) -> Tensor:
    logits = model(input_ids=TOKENS).logits[:, :-1].reshape(-1, VOCAB)
    return dense_target_loss(logits, LABELS[:, 1:].reshape(-1), spec) / VALID


@pytest.fixture
def model() -> Any:
    return tiny_llama(3, VOCAB).train()


# trl 1.16 sets an option that transformers 5.23 renamed; until trl follows
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(("loss_type", "preset"), [("nll", "sft"), ("dft", "dft")])
def test_parameter_gradients_are_those_of_the_trl_trainer(
    loss_type: str, preset: str, model: Any, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl", reason="the extra `trl` is not installed")
    from datasets import Dataset
    from tiny_llama import character_tokenizer

    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), loss_type=loss_type, report_to=[], use_cpu=True, bf16=False, max_length=24
    )
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": TOKENS.tolist()}),
        processing_class=character_tokenizer(),
    )
    batch = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS), "labels": LABELS}
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(VALID))
    expected = parameter_gradients(trainer.model, loss)
    value = ours(trainer.model, presets.get(preset))
    torch.testing.assert_close(value, loss, rtol=1e-5, atol=1e-6)
    found = parameter_gradients(trainer.model, value)
    assert found.keys() == expected.keys() and len(found) > 20
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("lam", [0.1, 0.5])
def test_label_smoothing_is_that_of_transformers(lam: float, model: Any) -> None:
    model.double()
    smoother = LabelSmoother(epsilon=lam)
    theirs = smoother(model(input_ids=TOKENS), LABELS, shift_labels=True)
    expected = parameter_gradients(model, theirs)
    value = ours(model, presets.get("label_smoothing", lam=lam))
    torch.testing.assert_close(value, theirs, rtol=1e-6, atol=0)  # it sums over the vocabulary in float32
    found = parameter_gradients(model, value)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)
