"""The fused loss inside wrapped models: several ranks, activation checkpointing, torch.compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from qtarget.spaces import presets
from qtarget.trainers.loss import fused_target_loss

pytestmark = pytest.mark.slow

TOKENS, VOCAB, WIDTH = 15, 31, 8
SFT = presets.get("sft")


@pytest.fixture(scope="module")
def two_ranks() -> dict[str, Any]:
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = dict(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("wrapper", ["ddp", "fsdp1", "fsdp2"])
def test_two_ranks_get_the_gradients_of_one_process(two_ranks: dict[str, Any], wrapper: str) -> None:
    assert two_ranks[wrapper] <= 1e-6


def test_a_sharded_head_is_gathered_once_however_many_chunks_there_are(two_ranks: dict[str, Any]) -> None:
    found = two_ranks["gathers"]
    assert found["many chunks"] == found["one chunk"] > 0


def test_a_sharded_head_is_refused_with_the_way_to_call(two_ranks: dict[str, Any]) -> None:
    assert "inside the wrapped model's forward" in two_ranks["refusal"]


class Body(nn.Module):
    """Embedding and two layers with dropout, so that a wrong replay of a checkpoint would show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH))

    def forward(self, inputs: Tensor, *, checkpointed: bool = False) -> Tensor:
        hidden = self.embedding(inputs)
        if checkpointed:
            result: Tensor = checkpoint(self.layers, hidden, use_reentrant=False)
            return result
        result = self.layers(hidden)
        return result


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randint(VOCAB, (2, TOKENS), generator=generator)
    labels[3] = -100
    return inputs, labels


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_activation_checkpointing_changes_nothing() -> None:
    inputs, labels = batch()
    model = Body()
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(2)
        hidden = model(inputs, checkpointed=checkpointed)
        found.append(gradients(model, fused_target_loss(hidden, model.embedding.weight, labels, SFT).loss_sum))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_the_loss_itself_may_be_checkpointed() -> None:
    inputs, labels = batch()
    model = Body().eval()

    def loss(hidden: Tensor) -> Tensor:
        return fused_target_loss(hidden, model.embedding.weight, labels, SFT).loss_sum

    hidden = model(inputs)
    found = gradients(model, checkpoint(loss, hidden, use_reentrant=False))
    torch.testing.assert_close(found, gradients(model, loss(model(inputs))))


class WithLoss(nn.Module):
    """A model whose forward pass ends in the loss, as a trainer compiles it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body().eval()

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return 2.0 * fused_target_loss(self.body(inputs), self.body.embedding.weight, labels, SFT).loss_sum


@pytest.mark.parametrize("around", ["body", "body and loss"])
def test_a_compiled_model_gets_the_same_gradients(around: str) -> None:
    """The loss runs outside the graph; what is compiled is the model around it."""
    inputs, labels = batch()
    model = WithLoss()
    expected = 2.0 * cross_entropy(model.body(inputs) @ model.body.embedding.weight.T, labels, reduction="sum")
    if around == "body":
        body = torch.compile(model.body, backend="aot_eager")
        loss = 2.0 * fused_target_loss(body(inputs), model.body.embedding.weight, labels, SFT).loss_sum
    else:
        loss = torch.compile(model, backend="aot_eager")(inputs, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected))
