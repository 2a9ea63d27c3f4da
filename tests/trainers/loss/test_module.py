"""The loss in somebody else's loop: equal to our own, over hidden states or logits, whole or in micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qtarget import TargetLoss
from qtarget.spaces import presets
from qtarget.spaces.gamma.base import Schedule
from qtarget.trainers.loss import dense_target_loss

SEQUENCES, POSITIONS, WIDTH, VOCAB = 4, 7, 6, 11
PRESETS = ("sft", "dft", "label_smoothing", "sft_kl", "target_sft", "profit", "kd")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(VOCAB, (SEQUENCES, POSITIONS), generator=generator)
    labels[:, :2] = -100
    labels[1, 3:] = -100  # micro-batches differ in their number of tokens
    return {
        "hidden": draw(SEQUENCES, POSITIONS, WIDTH),
        "weight": draw(VOCAB, WIDTH),
        "labels": labels,
        "teacher": draw(SEQUENCES, POSITIONS, VOCAB),
        "reference": draw(SEQUENCES, POSITIONS, VOCAB),
    }


def oracle(batch, spec):
    """Mean over all valid tokens, and its gradients in hidden states and head, by the dense loss on shifted rows."""
    hidden, weight = batch["hidden"].clone().requires_grad_(), batch["weight"].clone().requires_grad_()
    logits = (hidden @ weight.T)[:, :-1].flatten(0, 1)
    labels = batch["labels"][:, 1:].flatten()
    others = {f"{name}_logits": batch[name][:, :-1].flatten(0, 1) for name in ("teacher", "reference")}
    loss = dense_target_loss(logits, labels, spec, **others) / (labels != -100).sum()
    return loss.detach(), torch.autograd.grad(loss, (hidden, weight))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("over", ["hidden", "logits"])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole_batch(batch, name, over, micro):
    spec = presets.get(name)
    value, gradients = oracle(batch, spec)
    hidden, weight = batch["hidden"].clone().requires_grad_(), batch["weight"].clone().requires_grad_()
    loss, items, total = TargetLoss(spec, shift=True), (batch["labels"][:, 1:] != -100).sum(), 0.0
    for start in range(0, SEQUENCES, micro):
        some = slice(start, start + micro)
        given = {name: batch[name][some] for name in ("teacher", "reference")}
        if over == "hidden":
            part = loss(hidden[some], weight, batch["labels"][some], num_items=items, **given)
        else:
            part = loss(logits=hidden[some] @ weight.T, labels=batch["labels"][some], num_items=items, **given)
        part.backward()
        total += part.detach()
    torch.testing.assert_close(total, value)
    torch.testing.assert_close((hidden.grad, weight.grad), gradients)


def test_a_layer_is_a_head_with_its_bias(batch):
    layer = nn.Linear(WIDTH, VOCAB, dtype=torch.float64)
    hidden, labels = batch["hidden"], batch["labels"]
    loss = TargetLoss("dft")
    torch.testing.assert_close(loss(hidden, layer, labels), loss(logits=layer(hidden), labels=labels))


@pytest.mark.parametrize("denominator", ["all", "kept", "weights"])
def test_hidden_states_and_logits_have_one_divisor(batch, denominator):
    spec = presets.get("profit").model_copy(update={"denominator": denominator})
    loss = TargetLoss(spec)
    weights = torch.rand(SEQUENCES, POSITIONS, dtype=torch.float64) + 0.5
    ours = loss.sum_and_divisor(batch["hidden"], batch["weight"], batch["labels"], weights=weights)
    logits = batch["hidden"] @ batch["weight"].T
    theirs = loss.sum_and_divisor(logits=logits, labels=batch["labels"], weights=weights)
    torch.testing.assert_close(ours, theirs, check_dtype=False)


def test_a_batch_without_labels_is_zero_with_a_zero_gradient(batch):
    hidden = batch["hidden"].clone().requires_grad_()
    loss = TargetLoss("sft")(hidden, batch["weight"], torch.full_like(batch["labels"], -100))
    loss.backward()
    assert loss == 0 and hidden.grad is not None and not hidden.grad.any()


def test_a_schedule_moves_with_the_progress(batch):
    spec = presets.get("dft")
    gamma = spec.gamma.model_copy(update={"schedule": Schedule()})
    moving = type(spec).model_validate(spec.model_dump() | {"gamma": gamma.model_dump()})
    logits, labels = batch["hidden"] @ batch["weight"].T, batch["labels"]
    early, late = (TargetLoss(moving)(logits=logits, labels=labels, progress=each) for each in (0.0, 1.0))
    torch.testing.assert_close(late, TargetLoss("dft")(logits=logits, labels=labels))
    assert early != late


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": torch.zeros(3).long()}, "either `hidden` and `head` or `logits`"),
        ({"logits": torch.zeros(3, 4), "labels": torch.zeros(2).long()}, r"got \(3, 4\) and \(2,\)"),
        ({"logits": torch.zeros(3, 4), "labels": torch.zeros(3).long()}, "`shift` needs labels of sequences"),
    ],
)
def test_what_does_not_fit_is_said(given, said):
    with pytest.raises(ValueError, match=said):
        TargetLoss("sft", shift=True)(**given)


def test_what_a_design_needs_is_asked_for(batch):
    with pytest.raises(ValueError, match="teacher"):
        TargetLoss("kd")(batch["hidden"], batch["weight"], batch["labels"])
