"""The training loop against a loop written by hand, and what must not change its result."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from qtarget.spaces.target import TargetSpec
from qtarget.trainers.data.batches import BatchOrder
from qtarget.trainers.loop.sft import DivergedError, StepReport, train
from qtarget.trainers.settings import TrainingSettings

SFT = TargetSpec()
SETTINGS = TrainingSettings(steps=6, effective_batch=8, micro_batch=4, learning_rate=3e-3, checkpoint_every=2)


def run(model, data, settings=SETTINGS, target=SFT, **extras):
    reports: list[StepReport] = []

    def on_step(report: StepReport) -> bool:
        reports.append(report)
        return False

    outcome = train(model, data, target, settings, seed=3, folder=extras.pop("folder", None), on_step=on_step, **extras)
    return outcome, reports


def difference(left: torch.nn.Module, right: torch.nn.Module) -> float:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return max(float((a.detach().double() - b.detach().double()).abs().max()) for a, b in pairs)


def hand_written_sft(model, data, settings):
    """One example at a time, no chunks, no padding: sum of cross-entropies over the tokens of the whole batch."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1.0, betas=(0.9, 0.95)
    )
    order = BatchOrder(data, settings.effective_batch, 3, 0)
    losses = []
    for step in range(settings.steps):
        # one step of warm-up out of six, then half a cosine over the other five
        rate = 0.5 if step == 0 else 0.5 + 0.5 * math.cos(math.pi * (step - 1) / 5)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        total, count = 0.0, 0
        for index in order.at(step).indices:
            ids = data[index].token_ids.long()
            logits = model(input_ids=ids.unsqueeze(0)).logits[0]
            answer = data[index].completion.nonzero().squeeze(1)
            total = total + functional.cross_entropy(logits[answer - 1], ids[answer], reduction="sum")
            count += len(answer)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total.detach()) / count)
    return losses


@pytest.mark.parametrize("loss", ["fused", "dense"])
def test_plain_sft_equals_a_loop_written_by_hand(make_model, sums, loss):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    outcome, reports = run(ours, sums, SETTINGS.model_copy(update={"loss": loss}))
    losses = hand_written_sft(theirs, sums, SETTINGS)
    assert [report.loss for report in reports] == pytest.approx(losses, rel=1e-9)
    assert difference(ours, theirs) < 1e-8
    assert (outcome.status, outcome.step) == ("finished", 6)
    assert outcome.tokens == sum(report.tokens for report in reports)


def test_training_learns(make_model, sums):
    settings = SETTINGS.model_copy(update={"steps": 40, "learning_rate": 1e-2})
    _, reports = run(make_model(), sums, settings)
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].label_prob > reports[0].label_prob
    assert reports[-1].entropy < reports[0].entropy


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_micro_batch_does_not_change_the_run(make_model, sums, micro_batch):
    whole, cut = make_model(), make_model()
    _, expected = run(whole, sums)
    _, found = run(cut, sums, SETTINGS.model_copy(update={"micro_batch": micro_batch}))
    for one, other in zip(expected, found, strict=True):
        assert (one.loss, one.gradient_norm) == pytest.approx((other.loss, other.gradient_norm), rel=1e-5)


def test_prompts_get_no_gradient(make_model, sums):
    """The loss and its count cover completions only; unmasking the prompts changes both."""
    model, other = make_model(), make_model()
    flipped = dataclasses.replace(
        sums, examples=tuple(dataclasses.replace(e, completion=torch.ones_like(e.completion)) for e in sums)
    )
    _, masked = run(model, sums, SETTINGS.model_copy(update={"steps": 1}))
    _, everything = run(other, flipped, SETTINGS.model_copy(update={"steps": 1}))
    first = BatchOrder(sums, 8, 3, 0).at(0)
    assert masked[0].tokens == sum(int(e.completion.sum()) for e in first.examples)
    assert everything[0].tokens == sum(len(e.token_ids) - 1 for e in first.examples)
    assert difference(model, other) > 1e-4


def test_callback_stops_and_the_run_resumes_bit_for_bit(make_model, sums, tmp_path):
    straight, stopped = make_model(), make_model()
    run(straight, sums)
    outcome = train(stopped, sums, SFT, SETTINGS, seed=3, folder=tmp_path, on_step=lambda report: report.step == 3)
    assert (outcome.status, outcome.step) == ("stopped", 3)
    resumed = make_model(seed=9)  # the weights come from the checkpoint alone
    outcome = train(resumed, sums, SFT, SETTINGS, seed=3, folder=tmp_path)
    assert (outcome.status, outcome.step) == ("finished", 6)
    assert difference(straight, resumed) == 0.0


def test_a_finished_run_is_not_trained_again(make_model, sums, tmp_path):
    model, again = make_model(), make_model(seed=9)
    first = train(model, sums, SFT, SETTINGS, seed=3, folder=tmp_path)
    second = train(again, sums, SFT, SETTINGS, seed=3, folder=tmp_path)
    assert first == second
    assert difference(model, again) == 0.0


def test_callback_may_use_randomness_and_change_the_mode(make_model, sums):
    calm, disturbed = make_model(), make_model()
    for model in (calm, disturbed):
        model.config.attention_dropout = 0.3
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3

    def disturb(report: StepReport) -> bool:
        torch.rand(report.step)
        disturbed.eval()
        return False

    train(calm, sums, SFT, SETTINGS, seed=3, folder=None)
    train(disturbed, sums, SFT, SETTINGS, seed=3, folder=None, on_step=disturb)
    assert difference(calm, disturbed) == 0.0


def test_training_leaves_the_callers_randomness_alone(make_model, sums):
    model = make_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(model, sums, SFT, SETTINGS, seed=3, folder=None)
    assert torch.equal(torch.rand(3), expected)


def test_non_finite_loss_stops_before_the_step(make_model, sums):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[7] = math.inf
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DivergedError, match="step 1 must have a finite loss"):
        train(model, sums, SFT, SETTINGS, seed=3, folder=None)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_bf16_keeps_updates_too_small_for_its_weights(make_model, sums):
    model = make_model(dtype=torch.bfloat16)
    settings = SETTINGS.model_copy(update={"steps": 40, "learning_rate": 3e-5, "precision": "bf16"})
    start = model.model.embed_tokens.weight.detach().clone()
    _, reports = run(model, sums, settings)
    assert reports[-1].loss < reports[0].loss
    assert not torch.equal(start, model.model.embed_tokens.weight)
