"""The cache through the loss and the trainer: exact when it keeps everything, and its bias when it does not."""

import copy
from pathlib import Path

import pytest
import torch
from cache_world import PADDED, VOCAB, demonstrations, dense_logprobs, key, teacher
from torch import Tensor

from qtarget.spaces.target import TargetSpec
from qtarget.trainers.data.batches import collate
from qtarget.trainers.loop.sft import train
from qtarget.trainers.loss import dense_target_loss, fused_target_loss
from qtarget.trainers.loss.residual_source import CachedSlice
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.sources import CachedModel, Source

SPECS: dict[str, dict[str, object]] = {
    "distillation": {"gamma": {"kind": "constant", "value": 0.0}, "residual": {"kind": "teacher"}},
    "half label": {"gamma": {"kind": "constant", "value": 0.5}, "residual": {"kind": "teacher"}},
    "power": {"gamma": {"kind": "power", "exponent": 0.5}, "residual": {"kind": "teacher"}},
    "geometric": {"gamma": {"kind": "constant", "value": 0.3}, "residual": {"kind": "geometric"}},
}


def spec(name: str) -> TargetSpec:
    return TargetSpec.model_validate(SPECS[name])


def opened(root: Path, **changes: object) -> TeacherCache:
    data = demonstrations()
    cache_key = key(data, **changes)
    return TeacherCache.open(build(teacher(), data, cache_key, root, pad_token_id=0, shard_tokens=30), cache_key)


def student_rows(vocab: int, tokens: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Float64 hidden states (T, 24) and head (vocab, 24)."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 24, generator=generator, dtype=torch.float64, requires_grad=True)
    head = 0.5 * torch.randn(vocab, 24, generator=generator, dtype=torch.float64)
    return hidden, head.requires_grad_()


def labels_of(examples: list[int]) -> Tensor:
    data = demonstrations()
    return torch.cat([data[index].labels[data[index].labels >= 0] for index in examples])


def by_cache(rows: CachedSlice, target: TargetSpec, vocab: int) -> list[Tensor]:
    """Value and gradients of the fused loss on cached rows."""
    hidden, head = student_rows(vocab, rows.num_tokens)
    names = {"teacher": rows, "reference": rows}
    loss = fused_target_loss(hidden, head, labels_of(EXAMPLES), target, **names, real_vocab=VOCAB).loss_sum
    return [loss.detach(), *torch.autograd.grad(loss, [hidden, head])]


def by_dense(logprobs: Tensor, target: TargetSpec, vocab: int) -> list[Tensor]:
    """Value and gradients of the dense loss towards dense log-probs (T, vocab)."""
    hidden, head = student_rows(vocab, len(logprobs))
    names = {"teacher_logits": logprobs, "reference_logits": logprobs}
    loss = dense_target_loss(hidden @ head.T, labels_of(EXAMPLES), target, **names, real_vocab=VOCAB)
    return [loss.detach(), *torch.autograd.grad(loss, [hidden, head])]


EXAMPLES = [3, 0, 8]


def exact(vocab: int = VOCAB) -> Tensor:
    rows = torch.cat([dense_logprobs(teacher(), demonstrations(), index) for index in EXAMPLES])
    return torch.nn.functional.pad(rows, (0, vocab - VOCAB), value=-torch.inf)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("vocab", [VOCAB, PADDED])
def test_a_cache_of_everything_is_exact(tmp_path: Path, name: str, vocab: int) -> None:
    rows = opened(tmp_path, k=VOCAB).rows(EXAMPLES)
    for found, expected in zip(
        by_cache(rows, spec(name), vocab), by_dense(exact(vocab), spec(name), vocab), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def with_students_tail(rows: CachedSlice, vocab: int) -> Tensor:
    """The cached distribution by its definition: kept entries and the label as they are, the rest like the student."""
    hidden, head = student_rows(vocab, rows.num_tokens)
    student = (hidden @ head.T).softmax(-1).detach()
    labels = labels_of(EXAMPLES)
    dense = torch.zeros_like(student)
    for token in range(len(dense)):
        kept = {int(i): p for i, p in zip(rows.ids[token], rows.logprobs[token].double().exp(), strict=True) if i >= 0}
        kept.setdefault(int(labels[token]), rows.label_logprob[token].double().exp())
        rest = [v for v in range(vocab) if v not in kept]
        dense[token, list(kept)] = torch.stack(list(kept.values()))
        dense[token, rest] = (1 - sum(kept.values())) * student[token, rest] / student[token, rest].sum()
    return dense.log()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("changes", [{"k": 8}, {"k": 40, "tail_mass": 0.2}, {"k": 8, "dtype": "float16"}])
def test_the_tail_has_the_students_shape(tmp_path: Path, name: str, changes: dict[str, object]) -> None:
    rows = opened(tmp_path, **changes).rows(EXAMPLES)
    expected = by_dense(with_students_tail(rows, VOCAB), spec(name), VOCAB)
    for found, wanted in zip(by_cache(rows, spec(name), VOCAB), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def student_near_the_teacher() -> tuple[Tensor, Tensor]:
    """Hidden states and head of the teacher with some noise: where fine-tuning starts from."""
    model, data = teacher(), demonstrations()
    batch = collate([data[index] for index in EXAMPLES], EXAMPLES, 0)
    hidden = model.rows(batch).hidden.double()
    noise = 0.2 * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (hidden + noise).requires_grad_(), model.head.weight.detach()[:VOCAB].double()


def hidden_gradient(rows: Tensor | CachedSlice) -> Tensor:
    """Of distillation towards `rows`, by the fused loss."""
    hidden, head = student_near_the_teacher()
    loss = fused_target_loss(hidden, head, labels_of(EXAMPLES), spec("distillation"), teacher=rows).loss_sum
    return torch.autograd.grad(loss, hidden)[0]


def zero_fill_gradient(rows: CachedSlice) -> Tensor:
    """Of the same entries without a tail: -sum of r log pi over the kept entries."""
    hidden, head = student_near_the_teacher()
    logprobs = (hidden @ head.T).log_softmax(-1).gather(1, rows.ids)
    return torch.autograd.grad(-(rows.logprobs.exp() * logprobs).sum(), hidden)[0]


def test_the_bias_falls_with_k_and_is_far_below_zero_fill(tmp_path: Path) -> None:
    truth = hidden_gradient(exact())
    errors = []
    for k in (4, 8, 16):
        rows = opened(tmp_path, k=k, dtype="float16").rows(EXAMPLES)
        errors.append(float((hidden_gradient(rows) - truth).norm() / truth.norm()))
        assert errors[-1] < 0.5 * float((zero_fill_gradient(rows) - truth).norm() / truth.norm())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def trained(source: Source, name: str) -> dict[str, Tensor]:
    """Weights of a student after three steps."""
    student = copy.deepcopy(teacher(seed=3, vocab=VOCAB).model).requires_grad_(True)
    settings = TrainingSettings(steps=3, effective_batch=6, micro_batch=3, learning_rate=1e-2, warmup_fraction=0.0)
    train(
        student, demonstrations(), spec(name), settings, seed=1, folder=None, teacher=source, reference=source,
        real_vocab=VOCAB,
    )  # fmt: skip
    return {name: tensor.detach().clone() for name, tensor in student.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half label", "geometric"])
def test_training_from_the_cache_is_training_from_the_live_teacher(tmp_path: Path, name: str) -> None:
    model, data = teacher(vocab=VOCAB), demonstrations()
    cache_key = key(data, k=VOCAB)
    cache = TeacherCache.open(build(model, data, cache_key, tmp_path, pad_token_id=0), cache_key)
    live, cached = trained(model, name), trained(CachedModel(cache), name)
    start = teacher(seed=3, vocab=VOCAB).model.state_dict()
    for parameter, tensor in cached.items():
        torch.testing.assert_close(tensor, live[parameter], rtol=1e-3, atol=1e-3)
    assert max(float((cached[parameter] - start[parameter]).abs().max()) for parameter in cached) > 0.01
