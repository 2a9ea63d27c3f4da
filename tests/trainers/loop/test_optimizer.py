"""Learning rates, clipping and masters, against torch's own or by hand."""

from __future__ import annotations

import math

import pytest
import torch

from qtarget.trainers.loop.optimizer import Optimizer, learning_rate
from qtarget.trainers.settings import TrainingSettings


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1 / 3), (1, 2 / 3), (2, 1.0), (6, 0.5), (9, 0.5 + 0.5 * math.cos(math.pi * 7 / 8))]
)
def test_the_rate_rises_and_falls_along_a_cosine(step, expected):
    settings = TrainingSettings(steps=10, warmup_fraction=0.2, learning_rate=2.0)
    assert learning_rate(settings, step) == pytest.approx(2.0 * expected)


def test_a_constant_rate_stays_after_its_rise():
    settings = TrainingSettings(steps=10, warmup_fraction=0.1, learning_rate=2.0, decay="constant")
    assert [learning_rate(settings, step) for step in (0, 1, 9)] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("clip_norm", [None, 0.5, 100.0])
def test_clipping_reports_the_norm_before_it(clip_norm):
    model = torch.nn.Linear(3, 2, bias=False)
    (model(torch.ones(1, 3)) * torch.tensor([3.0, 4.0])).sum().backward()
    optimizer = Optimizer(model, TrainingSettings(clip_norm=clip_norm))
    full = math.sqrt(3 * 9 + 3 * 16)
    assert optimizer.clip().item() == pytest.approx(full)
    after = math.sqrt(sum(float(gradient.square().sum()) for gradient in optimizer.gradients()))
    assert after == pytest.approx(full if clip_norm is None else min(full, clip_norm), rel=1e-5)


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Optimizer(model, TrainingSettings(weight_decay=0.5))
    optimizer.gradients()
    optimizer.step(0.1)
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before[1])


def test_half_precision_weights_follow_full_precision_masters():
    half, full = torch.nn.Linear(4, 4).bfloat16(), torch.nn.Linear(4, 4)
    with torch.no_grad():
        full.weight.copy_(half.weight)
        full.bias.copy_(half.bias)
    settings = TrainingSettings(weight_decay=0.0)
    ours = Optimizer(half, settings)
    theirs = torch.optim.AdamW(full.parameters(), lr=1e-4, betas=settings.adam_betas, weight_decay=0.0)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        for part in inputs.split(2):
            half(part.bfloat16()).float().square().sum().backward()
            ours.collect()
        for name, parameter in full.named_parameters():
            parameter.grad = ours.masters[name].grad.clone()
        ours.step(1e-4)
        theirs.step()
    for name, parameter in full.named_parameters():
        torch.testing.assert_close(ours.masters[name].detach(), parameter.detach())
        assert torch.equal(ours.parameters[name], parameter.bfloat16())


def test_state_survives_a_round_trip():
    def gradient(model):
        model(torch.ones(1, 3)).square().sum().backward()

    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    one, two = Optimizer(model, TrainingSettings()), Optimizer(other, TrainingSettings())
    gradient(model)
    one.step(0.1)
    two.set_weights({name: master.detach() for name, master in one.masters.items()})
    two.set_moments({name: tensor.clone() for name, tensor in one.moments().items()})
    for half in (model, other):
        gradient(half)
    one.step(0.1)
    two.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
