"""The dense loss as a function: torch's own losses, masks, padding, precision, and inputs that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from target_specs import spec_of
from token_rows import random_rows
from torch import Tensor

from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss.dense import dense_target_loss

ROWS = random_rows("dense", tokens=20, vocab=12)
INPUTS = ROWS.inputs()


def gradient_of(loss: Tensor, z: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, z)
    return gradient


def fresh(logits: Tensor = ROWS.logits) -> Tensor:
    return logits.clone().requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lam", [0.0, 0.1, 0.7, 1.0])
def test_label_smoothing_is_that_of_torch(lam: float, dtype: torch.dtype) -> None:
    ours, theirs = fresh(ROWS.logits.to(dtype)), fresh(ROWS.logits.to(dtype))
    loss = dense_target_loss(ours, ROWS.labels, presets.get("label_smoothing", lam=lam))
    expected = torch.nn.CrossEntropyLoss(label_smoothing=lam, reduction="sum")(theirs, ROWS.labels)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(loss, expected, **tolerance)
    torch.testing.assert_close(gradient_of(loss, ours), gradient_of(expected, theirs), **tolerance)


def test_distillation_is_the_kl_divergence_of_torch() -> None:
    ours, theirs = fresh(), fresh()
    valid = ROWS.labels >= 0
    spec = presets.get("hybrid_kd", lam=1)
    loss = dense_target_loss(ours, ROWS.labels, spec, teacher_logits=ROWS.teacher_logits)
    teacher = ROWS.teacher_logits[valid].softmax(-1)
    expected = torch.nn.KLDivLoss(reduction="sum")(theirs[valid].log_softmax(-1), teacher)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient_of(loss, ours), gradient_of(expected, theirs), rtol=1e-12, atol=1e-12)


def test_sft_kl_is_cross_entropy_to_the_mixture_times_its_weight() -> None:
    lam = 0.3
    ours, theirs = fresh(), fresh()
    loss = dense_target_loss(ours, ROWS.labels, presets.get("sft_kl", lam=lam), **INPUTS)
    valid = ROWS.labels >= 0
    mixture = lam / (1 + lam) * ROWS.reference_logits[valid].softmax(-1)
    mixture[torch.arange(len(mixture)), ROWS.labels[valid]] += 1 / (1 + lam)
    expected = (1 + lam) * torch.nn.functional.cross_entropy(theirs[valid], mixture, reduction="sum")
    torch.testing.assert_close(gradient_of(loss, ours), gradient_of(expected, theirs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", presets.names())
def test_masked_tokens_change_nothing(name: str) -> None:
    spec = presets.get(name)
    kept = ROWS.labels >= 0
    z, half = fresh(), fresh(ROWS.logits[kept])
    loss = dense_target_loss(z, ROWS.labels, spec, **INPUTS)
    alone = dense_target_loss(half, ROWS.labels[kept], spec, **{key: value[kept] for key, value in INPUTS.items()})
    torch.testing.assert_close(loss, alone, rtol=1e-13, atol=1e-13)
    gradient = gradient_of(loss, z)
    torch.testing.assert_close(gradient[kept], gradient_of(alone, half), rtol=1e-13, atol=1e-13)
    assert not gradient[~kept].any()


@pytest.mark.parametrize("name", presets.names())
def test_without_a_valid_token_the_loss_is_zero_and_supports_backward(name: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        z = fresh(ROWS.logits.to(dtype))
        loss = dense_target_loss(z, torch.full_like(ROWS.labels, -100), presets.get(name), **INPUTS)
        assert loss == 0 and loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert not gradient_of(loss, z).any(), dtype


def test_gradient_scales_with_what_comes_after() -> None:
    z, twice = fresh(), fresh()
    once = gradient_of(dense_target_loss(z, ROWS.labels, presets.get("dft")), z)
    scaled = gradient_of(dense_target_loss(twice, ROWS.labels, presets.get("dft")) / -4, twice)
    torch.testing.assert_close(scaled, once / -4, rtol=1e-15, atol=0)


def test_inputs_are_neither_changed_nor_differentiated() -> None:
    teacher = ROWS.teacher_logits.clone().requires_grad_()
    z = fresh()
    dense_target_loss(z, ROWS.labels, presets.get("kd"), teacher_logits=teacher).backward()
    assert teacher.grad is None
    assert torch.equal(z.detach(), ROWS.logits) and torch.equal(teacher.detach(), ROWS.teacher_logits)


class TestPadding:
    """Rows of the head that the tokenizer cannot produce."""

    spec = presets.get("label_smoothing", lam=0.5)

    def test_uniform_mass_stays_on_the_real_vocabulary(self) -> None:
        real = 9
        labels = ROWS.labels.clamp(max=real - 1)
        ours, narrow = fresh(), fresh(ROWS.logits[:, :real])
        padded = ours.detach().clone()
        padded[:, real:] = -torch.inf  # the usual mask of padding
        padded.requires_grad_()
        loss = dense_target_loss(padded, labels, self.spec, real_vocab=real)
        expected = torch.nn.CrossEntropyLoss(label_smoothing=0.5, reduction="sum")(narrow, labels)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        gradient = gradient_of(loss, padded)
        torch.testing.assert_close(gradient[:, :real], gradient_of(expected, narrow), rtol=1e-12, atol=1e-12)
        assert not gradient[:, real:].any()

    def test_padding_is_only_pushed_down(self) -> None:
        z = fresh()
        gradient = gradient_of(dense_target_loss(z, ROWS.labels.clamp(max=8), self.spec, real_vocab=9), z)
        assert (gradient[ROWS.labels >= 0][:, 9:] > 0).all()

    @pytest.mark.parametrize(
        "residual",
        [
            {"kind": "uniform", "exclude_label": True},
            {"kind": "mixture", "uniform": 1, "reference": 0, "teacher": 0},
            {"kind": "teacher", "top_k": 1, "tail": "uniform"},
        ],
    )
    def test_no_residual_puts_even_mass_on_padding(self, residual: dict[str, Any]) -> None:
        spec = TargetSpec.model_validate({"gamma": {"kind": "constant", "value": 0.2}, "residual": residual})
        teacher = ROWS.teacher_logits.clone()
        teacher[:, 9:] = -torch.inf
        z = fresh()
        loss = dense_target_loss(z, ROWS.labels.clamp(max=8), spec, teacher_logits=teacher, real_vocab=9)
        valid = ROWS.labels >= 0
        torch.testing.assert_close(
            gradient_of(loss, z)[valid][:, 9:], ROWS.logits[valid].softmax(-1)[:, 9:], rtol=1e-12, atol=0
        )

    def test_a_teacher_with_another_padding_is_cut_to_the_real_vocabulary(self) -> None:
        wide = torch.cat([ROWS.teacher_logits[:, :9], torch.full((20, 5), 3.0, dtype=torch.float64)], dim=1)
        full = ROWS.teacher_logits.clone()
        full[:, 9:] = -torch.inf
        z, other = fresh(), fresh()
        labels = ROWS.labels.clamp(max=8)
        cut = dense_target_loss(z, labels, presets.get("kd"), teacher_logits=wide, real_vocab=9)
        same = dense_target_loss(other, labels, presets.get("kd"), teacher_logits=full, real_vocab=9)
        torch.testing.assert_close(gradient_of(cut, z), gradient_of(same, other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": ROWS.logits[None]}, r"`logits` must be \(tokens, vocab\)"),
        ({"labels": ROWS.labels[1:]}, r"`labels` \(tokens,\)"),
        ({"labels": ROWS.labels + 12}, r"a label must be -100 or in \[0, 12\)"),
        ({"labels": torch.full_like(ROWS.labels, -1)}, "a label must be -100 or in"),
        ({"real_vocab": 0}, r"`real_vocab` must be in \[1, 12\]"),
        ({"real_vocab": 13}, r"`real_vocab` must be in \[1, 12\]"),
        ({"old_logprobs": torch.zeros(3)}, r"`old_logprobs` must be \(tokens,\)"),
        ({"critical": torch.zeros(3)}, r"`critical` must be \(tokens,\)"),
        ({"sequence_ids": torch.zeros(3)}, r"`sequence_ids` must be \(tokens,\)"),
        ({"teacher_logits": ROWS.teacher_logits[:3]}, r"`teacher_logits` must be \(tokens, vocab\)"),
        ({"teacher_logits": ROWS.teacher_logits[:, :8]}, "must have the student's 12 entries, but got 8"),
        ({"teacher_logits": ROWS.teacher_logits[:, :8], "real_vocab": 9}, "both heads must have them"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"logits": ROWS.logits, "labels": ROWS.labels, "spec": presets.get("kd"), **INPUTS} | changes
    with pytest.raises(ValueError, match=message):
        dense_target_loss(**arguments)


@pytest.mark.parametrize("name", presets.names())
def test_a_missing_input_is_named_with_its_remedy(name: str) -> None:
    keywords = {each: f"{each}_logits" for each in ("teacher", "reference", "previous")}
    spec = presets.get(name)
    for need in spec.needs:
        inputs = {key: value for key, value in INPUTS.items() if key != keywords.get(need, need)}
        with pytest.raises(ValueError, match=rf"needs `{need}`, but it was not given; give|needs `{need}`.*; say"):
            dense_target_loss(ROWS.logits, ROWS.labels, spec, **inputs)
    given = {key: value for key, value in INPUTS.items() if key in {keywords.get(need, need) for need in spec.needs}}
    assert dense_target_loss(ROWS.logits, ROWS.labels, spec, **given).isfinite()


class TestSchedule:
    """γ moves between 1 and the family over the training."""

    def scheduled(self, **schedule: Any) -> TargetSpec:
        return TargetSpec.model_validate({"gamma": {"kind": "power", "schedule": schedule}})

    def gradient(self, spec: TargetSpec) -> Tensor:
        z = fresh()
        return gradient_of(dense_target_loss(z, ROWS.labels, spec), z)

    def test_it_starts_as_sft_and_ends_in_the_family(self) -> None:
        spec = self.scheduled(direction="from_one")
        torch.testing.assert_close(self.gradient(spec.at(0)), self.gradient(presets.get("sft")), rtol=0, atol=1e-15)
        torch.testing.assert_close(self.gradient(spec.at(1)), self.gradient(presets.get("dft")), rtol=0, atol=1e-15)

    @pytest.mark.parametrize("shape", ["linear", "cosine"])
    def test_halfway_is_the_mean(self, shape: str) -> None:
        mean = (self.gradient(presets.get("sft")) + self.gradient(presets.get("dft"))) / 2
        for direction in ("from_one", "to_one"):
            spec = self.scheduled(direction=direction, shape=shape, start=0.2, end=0.8)
            torch.testing.assert_close(self.gradient(spec.at(0.5)), mean, rtol=0, atol=1e-14)
            assert spec.at(0.1) == spec.at(0.2) and spec.at(0.8) == spec.at(1.0)

    def test_an_anchored_weight_moves_along(self) -> None:
        anchored = presets.get("asft").model_dump()
        anchored["gamma"]["schedule"] = {"direction": "from_one"}
        spec = TargetSpec.model_validate(anchored)
        z = fresh()
        start = gradient_of(dense_target_loss(z, ROWS.labels, spec.at(0), **INPUTS), z)
        torch.testing.assert_close(start, self.gradient(presets.get("sft")), rtol=0, atol=1e-14)

    def test_without_a_schedule_every_moment_is_the_same(self) -> None:
        spec = presets.get("dft")
        assert spec.at(0.3) is spec

    def test_an_unresolved_schedule_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"pass `spec.at\(progress\)`"):
            dense_target_loss(ROWS.logits, ROWS.labels, self.scheduled())

    @pytest.mark.parametrize("progress", [-0.1, 1.1])
    def test_progress_outside_the_training_is_refused(self, progress: float) -> None:
        with pytest.raises(ValueError, match=r"`progress` must be in \[0, 1\]"):
            self.scheduled().at(progress)


def test_value_and_gradient_of_a_tail_that_is_dropped() -> None:
    """ΣQ < 1: the gradient is (ΣQ)·π − Q, that of −Σ Q·log π."""
    spec = spec_of("zero", "teacher top-3 dropped").model_copy(update={"residual_loss": "ce"})
    ours, theirs = fresh(), fresh()
    loss = dense_target_loss(ours, ROWS.labels, spec, **INPUTS)
    valid = ROWS.labels >= 0
    top, index = ROWS.teacher_logits[valid].softmax(-1).topk(3)
    expected = -(top * theirs[valid].log_softmax(-1).gather(-1, index)).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient_of(loss, ours), gradient_of(expected, theirs), rtol=1e-12, atol=1e-12)
