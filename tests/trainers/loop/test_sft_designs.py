"""Designs that need more than the current batch's logits, trained against loops written by hand."""

from __future__ import annotations

import pytest
import torch

from qtarget.spaces import presets
from qtarget.spaces.gamma.base import Schedule
from qtarget.trainers.data.batches import BatchOrder
from qtarget.trainers.loop.old_policy import PreviousModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.sources import FrozenModel

SETTINGS = TrainingSettings(
    steps=5,
    effective_batch=8,
    micro_batch=4,
    learning_rate=3e-3,
    warmup_fraction=0.0,
    decay="constant",
    weight_decay=0.0,
    clip_norm=None,
    old_policy_every=2,
)


def losses_of(model, data, target, **extras):
    losses: list[float] = []
    on_step = lambda report: bool(losses.append(report.loss))  # noqa: E731
    train(model, data, target, SETTINGS, seed=3, folder=None, on_step=on_step, **extras)
    return losses


def label_logprobs(model, example):
    logprobs = model(input_ids=example.token_ids.long().unsqueeze(0)).logits[0].log_softmax(-1)
    answer = example.completion.nonzero().squeeze(1)
    return logprobs[answer - 1, example.token_ids.long()[answer]]


def by_hand(model, data, loss_of_batch):
    """Losses of a loop whose every step is `loss_of_batch(step, examples)`, already divided."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    order = BatchOrder(data, SETTINGS.effective_batch, 3, 0)
    losses = []
    for step in range(SETTINGS.steps):
        loss = loss_of_batch(step, order.at(step).examples)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_proximal_ratios_are_to_the_start_of_the_window(make_model, sums):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    order = BatchOrder(sums, 8, 3, 0)
    old: dict[int, torch.Tensor] = {}

    def proximal(step, examples):
        if step % 2 == 0:
            with torch.no_grad():
                for later in (step, step + 1):
                    old[later] = torch.cat([label_logprobs(theirs, example) for example in order.at(later).examples])
        ratio = (torch.cat([label_logprobs(theirs, example) for example in examples]) - old[step]).exp()
        return -ratio.clamp(max=1.05).mean()

    found = losses_of(ours, sums, presets.get("psft", eps=0.05))
    expected = by_hand(theirs, sums, proximal)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found[0] == pytest.approx(-1.0) and found[1] != pytest.approx(-1.0)


@pytest.mark.parametrize("denominator", ["all", "kept"])
def test_the_loss_is_divided_as_the_design_says(make_model, sums, denominator):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    target = presets.get("profit", tau=0.02).model_copy(update={"denominator": denominator})

    def kept(step, examples):
        logprobs = torch.cat([label_logprobs(theirs, example) for example in examples])
        mask = logprobs.exp() >= 0.02
        assert 0 < mask.sum() < len(mask)
        return -(logprobs * mask).sum() / (mask.sum() if denominator == "kept" else len(mask))

    assert losses_of(ours, sums, target) == pytest.approx(by_hand(theirs, sums, kept), rel=1e-6)


def test_a_schedule_moves_from_plain_sft_to_the_design(make_model, sums):
    smoothing = presets.get("label_smoothing", lam=0.4)
    gamma = smoothing.gamma.model_copy(update={"schedule": Schedule()})
    scheduled = losses_of(make_model(), sums, smoothing.model_copy(update={"gamma": gamma}))
    plain, full = losses_of(make_model(), sums, presets.get("sft")), losses_of(make_model(), sums, smoothing)
    assert scheduled[0] == pytest.approx(plain[0])
    assert abs(scheduled[-1] - full[-1]) < abs(scheduled[-1] - plain[-1])


def test_a_live_teacher_equals_distillation_by_hand(make_model, sums):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    teacher = make_model(seed=4, dtype=torch.float64)

    def divergence(step, examples):
        total, count = 0.0, 0
        for example in examples:
            ids, answer = example.token_ids.long().unsqueeze(0), example.completion.nonzero().squeeze(1)
            student = theirs(input_ids=ids).logits[0, answer - 1].log_softmax(-1)
            with torch.no_grad():
                target = teacher(input_ids=ids).logits[0, answer - 1].log_softmax(-1)
            total = total + (target.exp() * (target - student)).sum()
            count += len(answer)
        return total / count

    target = presets.get("kd").model_copy(update={"residual_loss": "kl"})
    found = losses_of(ours, sums, target, teacher=FrozenModel(teacher))
    assert found == pytest.approx(by_hand(theirs, sums, divergence), rel=1e-6)


def test_the_previous_model_follows_at_the_start_of_each_window(make_model):
    model = make_model()
    previous = PreviousModel(model, every=3)
    start = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    previous.refresh(2)
    assert torch.equal(previous.source.model.lm_head.weight, start)
    previous.refresh(3)
    assert torch.equal(previous.source.model.lm_head.weight, start + 1.0)
    assert not previous.source.model.lm_head.weight.requires_grad
    restored = PreviousModel(make_model(seed=2), every=3)
    restored.restore(previous.state())
    assert torch.equal(restored.source.model.lm_head.weight, start + 1.0)


@pytest.mark.parametrize("name", ["talr", "iw_sft", "sft_antiop"])
def test_trust_across_the_batch_does_not_depend_on_the_micro_batch(make_model, sums, name):
    target = presets.get(name)
    assert target.gamma.scope == "batch"
    reference = FrozenModel(make_model(seed=4))
    found = []
    for size, loss in ((8, "fused"), (4, "fused"), (2, "dense")):
        settings = SETTINGS.model_copy(update={"micro_batch": size, "loss": loss})
        reports = []
        on_step = lambda report, into=reports: bool(into.append((report.loss, report.gradient_norm)))  # noqa: E731
        train(make_model(), sums, target, settings, seed=3, folder=None, reference=reference, on_step=on_step)
        found.append(torch.tensor(reports))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-6)
