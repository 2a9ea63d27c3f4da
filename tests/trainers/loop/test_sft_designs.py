"""Designs that need more than the current batch's logits, trained against loops written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qtarget.spaces import presets
from qtarget.spaces.gamma.base import Schedule
from qtarget.spaces.target import PreviousPolicy
from qtarget.spaces.temperature import AdaptiveTemperature
from qtarget.trainers.data.batches import BatchOrder, collate
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.loop.old_policy import PreviousModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.format import CacheKey
from qtarget.trainers.teachers.sources import CachedModel, FrozenModel, LabelColumn

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


@pytest.mark.slow
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


def with_columns(data: Demonstrations, **make) -> Demonstrations:
    """The data with columns that `make` computes from a demonstration and its number."""
    examples = [
        replace(example, **{name: column(example, number) for name, column in make.items()})
        for number, example in enumerate(data)
    ]
    return replace(data, examples=tuple(examples))


def weights_of(example: Demonstration, number: int) -> torch.Tensor | None:
    """None for a third of them, one number for all tokens or one for each; some are 0."""
    if number % 3 == 0:
        return None
    length = len(example.token_ids)
    return torch.full((length,), 0.5) if number % 3 == 1 else torch.arange(length) % 4 * 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dft", "profit"])
@pytest.mark.parametrize("denominator", ["all", "kept", "weights"])
def test_weights_of_the_data_multiply_and_divide(make_model, sums, name, denominator):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    weighted = with_columns(sums, weights=weights_of)
    assert weighted.has_weights and weighted.fingerprint != sums.fingerprint and weighted.num_labels < sums.num_labels

    def mean(step, examples):
        logprobs = torch.cat([label_logprobs(theirs, example) for example in examples])
        rows = [torch.ones(len(e.token_ids)) if e.weights is None else e.weights for e in examples]
        weights = torch.cat([row[e.completion] for row, e in zip(rows, examples, strict=True)]).double()
        p = logprobs.exp().detach()
        gamma = {"sft": torch.ones_like(p), "dft": p, "profit": (p > 0.02).double()}[name]
        counted = {"all": torch.ones_like(p), "kept": (gamma > 0) if name == "profit" else 1, "weights": gamma}
        return -(weights * gamma * logprobs).sum() / (weights * counted[denominator]).sum()

    knobs = {"tau": 0.02} if name == "profit" else {}
    target = presets.get(name, **knobs).model_copy(update={"denominator": denominator})
    assert losses_of(ours, weighted, target) == pytest.approx(by_hand(theirs, weighted, mean), rel=1e-6)


def test_weights_of_zero_and_one_are_a_mask_of_critical_tokens(make_model, sums):
    odd = lambda example, number: torch.arange(len(example.token_ids)) % 2 == number % 2  # noqa: E731
    masked = with_columns(sums, critical=odd)
    weighted = with_columns(sums, weights=lambda example, number: odd(example, number).float())
    kept = presets.get("cft").model_copy(update={"denominator": "kept"})
    by_mask = losses_of(make_model(dtype=torch.float64), masked, kept)
    assert losses_of(make_model(dtype=torch.float64), weighted, presets.get("sft")) == pytest.approx(by_mask, rel=1e-7)


def test_a_switch_trains_the_marked_tokens_alone_from_its_start_on(make_model, sums):
    ours, theirs = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    marked = with_columns(sums, critical=lambda example, number: torch.arange(len(example.token_ids)) % 3 == 0)
    target = presets.get("cft").model_copy(update={"denominator": "kept"})
    gamma = target.gamma.model_copy(update={"schedule": Schedule(shape="step", start=0.5)})

    def stages(step, examples):
        logprobs = torch.cat([label_logprobs(theirs, example) for example in examples])
        mask = torch.cat([example.critical[example.completion] for example in examples])
        return -logprobs.mean() if step < 2 else -logprobs[mask].mean()

    found = losses_of(ours, marked, target.model_copy(update={"gamma": gamma}))
    assert found == pytest.approx(by_hand(theirs, marked, stages), rel=1e-6)


ANCHORED = ["asft_k3", "sft_k3", "flow", "flow_token", "stm", "prift", "iw_sft"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ANCHORED)
def test_an_anchor_at_the_label_is_the_same_live_cached_and_from_the_data(make_model, sums, name, tmp_path: Path):
    base = FrozenModel(make_model(seed=4))
    target = presets.get(name, **({"tau": 0.02} if name == "stm" else {}))
    content = {"model": "m", "tokenizer": "t", "template": "c", "data": sums.fingerprint, "max_length": 64}
    key = CacheKey.model_validate({**content, "vocab": 47, "dtype": "float32", "content": "label"})
    cache = CachedModel(TeacherCache.open(build(base, sums, key, tmp_path, pad_token_id=0), key))

    def column(example: Demonstration, number: int) -> torch.Tensor:
        values = torch.zeros(len(example.token_ids))
        values[example.completion] = cache.rows(collate([example], [number], 0)).logprobs
        return values

    brought = with_columns(sums, reference_logprobs=column)
    live = losses_of(make_model(), sums, target, reference=base)
    assert losses_of(make_model(), sums, target, reference=cache) == pytest.approx(live, rel=1e-4)
    assert losses_of(make_model(), brought, target, reference=LabelColumn()) == pytest.approx(live, rel=1e-4)
    assert len(set(live)) == len(live)


def test_a_frozen_anchor_spares_the_students_pass_over_the_batch(make_model, sums, monkeypatch):
    """FLOW looks at the reference alone: its median over the batch takes no forward pass of the student."""
    passes: list[int] = []
    monkeypatch.setattr(
        "qtarget.trainers.loop.batch_trust.hidden_states", lambda *given: passes.append(1) or pytest.fail("a pass")
    )
    assert len(losses_of(make_model(), sums, presets.get("flow"), reference=FrozenModel(make_model(seed=4)))) == 5
    assert not passes


def test_a_self_teacher_is_a_moving_average_at_a_temperature_of_its_own(make_model, sums):
    """CurioSFT by hand: every second step the self-teacher keeps 0.6 of itself."""
    ours, theirs, teacher = (make_model(dtype=torch.float64) for _ in range(3))

    def tempered(example):
        ids, answer = example.token_ids.long().unsqueeze(0), example.completion.nonzero().squeeze(1)
        logprobs = teacher(input_ids=ids).logits[0, answer - 1].log_softmax(-1)
        return AdaptiveTemperature().label_logprobs(logprobs, ids[0, answer])

    def squared(step, examples):
        with torch.no_grad():
            if step % 2 == 0:
                for mine, current in zip(teacher.parameters(), theirs.parameters(), strict=True):
                    mine.copy_(0.6 * mine + 0.4 * current)
            flat = torch.cat([tempered(example) for example in examples])
        logprobs = torch.cat([label_logprobs(theirs, example) for example in examples])
        return (-logprobs + 0.5 * (logprobs - flat) ** 2).mean()

    target = presets.get("curiosft")
    assert target.previous is not None and (target.previous.every, target.previous.decay) == (5, 0.01)
    follows = target.previous.model_copy(update={"every": 2, "decay": 0.6})
    found = losses_of(ours, sums, target.model_copy(update={"previous": follows}))
    assert found == pytest.approx(by_hand(theirs, sums, squared), rel=1e-6)


def test_an_average_at_the_label_follows_without_whole_rows(make_model, sums):
    ours, theirs, average = (make_model(dtype=torch.float64) for _ in range(3))
    order, old = BatchOrder(sums, 8, 3, 0), {}

    def anchored(step, examples):
        if step % 2 == 0:
            with torch.no_grad():
                for mine, current in zip(average.parameters(), theirs.parameters(), strict=True):
                    mine.copy_(0.9 * mine + 0.1 * current)
                for later in (step, step + 1):
                    old[later] = torch.cat([label_logprobs(average, example) for example in order.at(later).examples])
        logprobs = torch.cat([label_logprobs(theirs, example) for example in examples])
        ratio = old[step] - logprobs
        return (-logprobs + 0.3 * (ratio.exp() - 1 - ratio)).mean()

    target = presets.get("sft_k3", lam=0.3)
    gamma = target.gamma.model_copy(update={"source": "previous"})
    follows = PreviousPolicy(decay=0.9)
    found = losses_of(ours, sums, target.model_copy(update={"gamma": gamma, "previous": follows}))
    assert found == pytest.approx(by_hand(theirs, sums, anchored), rel=1e-6)


def test_a_moving_average_in_half_precision_keeps_small_changes(make_model):
    model = make_model(dtype=torch.bfloat16)
    previous = PreviousModel(model, every=1, decay=0.999)
    start = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    for step in range(300):
        previous.refresh(step)
    moved = (previous.source.model.lm_head.weight - start).float().mean()
    assert float(moved) == pytest.approx(1 - 0.999**300, rel=0.02)
    restored = PreviousModel(make_model(seed=2, dtype=torch.bfloat16), every=1, decay=0.999)
    restored.restore(previous.state())
    for each in (previous, restored):
        each.model = model
        each.refresh(0)
    assert torch.equal(restored.source.model.lm_head.weight, previous.source.model.lm_head.weight)
