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
    optimizer = Optimizer(model, TrainingSettings(clip_norm=clip_norm, adam_betas=(0.75, 0.9)))
    optimizer.collect()
    full = math.sqrt(3 * 9 + 3 * 16)
    assert optimizer.clip() == pytest.approx(full)
    optimizer.step(0.1)
    after = float(optimizer.moments()["weight/exp_avg"].norm()) / 0.25
    assert after == pytest.approx(full if clip_norm is None else min(full, clip_norm), rel=1e-5)


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Optimizer(model, TrainingSettings(weight_decay=0.5))
    optimizer.step(0.1)
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before[1])


class Odd(torch.nn.Module):
    """Weights of all forms: longer than a piece, one row, transposed in memory, a scalar, one that nothing reaches."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"long": (700, 500), "wide": (1, 300_000), "vector": (7,), "scalar": (), "idle": (3, 4)}
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)))
        self.turned = torch.nn.Parameter(torch.randn(600, 400, generator=generator).to(dtype).T)

    def teach(self, seed):
        """Random gradients, as of one backward pass."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name != "idle":
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("passes", [1, 3])
def test_updates_are_those_of_torchs_fused_adamw_bit_for_bit(dtype, passes):
    model, settings = Odd(dtype), TrainingSettings(weight_decay=0.1, clip_norm=1.0)
    ours = Optimizer(model, settings)
    full = {name: master.clone().requires_grad_() for name, master in ours.masters.items()}
    groups = [
        {"params": [each for each in full.values() if each.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [each for each in full.values() if each.ndim < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, betas=settings.adam_betas, fused=True)
    for step in range(3):
        for each in full.values():
            each.grad = torch.zeros_like(each)
        for part in range(passes):
            model.teach(10 * step + part)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    full[name].grad += parameter.grad.to(full[name].dtype)
            ours.collect()
            assert all(parameter.grad is None for parameter in model.parameters())
        ours.scale(0.5)
        norm = ours.clip()
        squares = [each.grad.double().square().sum() for each in full.values()]
        assert norm == pytest.approx(0.5 * float(torch.stack(squares).sum().sqrt()), rel=1e-5)
        for each in full.values():
            each.grad *= 0.5 * (settings.clip_norm / (norm + 1e-6))
        for group in theirs.param_groups:
            group["lr"] = 1e-3
        ours.step(1e-3)
        theirs.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(ours.masters[name], full[name].detach())
        assert torch.equal(parameter.detach(), full[name].detach().to(dtype))
        assert torch.equal(ours.moments()[f"{name}/exp_avg_sq"], theirs.state[full[name]]["exp_avg_sq"])


def test_state_survives_a_round_trip():
    def gradient(model):
        model(torch.ones(1, 3)).square().sum().backward()

    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    one, two = Optimizer(model, TrainingSettings()), Optimizer(other, TrainingSettings())
    gradient(model)
    one.collect()
    one.step(0.1)
    two.set_weights({name: master.detach() for name, master in one.masters.items()})
    two.set_moments({name: tensor.clone() for name, tensor in one.moments().items()})
    for half, optimizer in ((model, one), (other, two)):
        gradient(half)
        optimizer.collect()
    one.step(0.1)
    two.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
