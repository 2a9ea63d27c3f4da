"""The measured bias of a cache, against its definition in float64."""

import copy
from pathlib import Path

import pytest
import torch
from cache_world import VOCAB, demonstrations, key, teacher

from qtarget.trainers.data.batches import collate
from qtarget.trainers.teachers.bias import CacheBias, cache_bias
from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.cache import TeacherCache

ORDERS = [[0, 4, 7], [9, 2, 3]]
BATCHES = [collate([demonstrations()[index] for index in order], order, 0) for order in ORDERS]


def student() -> torch.nn.Module:
    """The teacher with disturbed weights."""
    model = copy.deepcopy(teacher(vocab=VOCAB).model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def cache(root: Path, k: int) -> TeacherCache:
    data = demonstrations()
    cache_key = key(data, k=k)
    return TeacherCache.open(build(teacher(vocab=VOCAB), data, cache_key, root, pad_token_id=0), cache_key)


def measured(root: Path, *sizes: int) -> dict[str, CacheBias]:
    caches = {str(k): cache(root, k) for k in sizes}
    return cache_bias(student(), teacher(vocab=VOCAB), caches, BATCHES)


def test_a_cache_of_everything_has_no_bias(tmp_path: Path) -> None:
    bias = measured(tmp_path, VOCAB)[str(VOCAB)]
    assert bias.kl == pytest.approx(0, abs=1e-6)
    assert bias.worst_cosine == pytest.approx(1, abs=1e-5)
    assert bias.zero_fill_worst_cosine == pytest.approx(1, abs=1e-5)
    assert bias.tokens == sum(len(batch.flat_labels) for batch in BATCHES)


def test_the_divergence_is_that_of_the_tails_shapes(tmp_path: Path) -> None:
    k = 8
    found = measured(tmp_path, k)[str(k)]
    total = drift = tokens = 0.0
    for batch in BATCHES:
        with torch.no_grad():
            exact = teacher(vocab=VOCAB).model(input_ids=batch.inputs).logits[batch.valid].double().softmax(-1)
            ours = student()(input_ids=batch.inputs).logits[batch.valid].double().softmax(-1)
        outside = torch.ones_like(exact).scatter(1, exact.topk(k).indices, 0.0)
        outside.scatter_(1, batch.flat_labels[:, None], 0.0)  # the label's probability is kept, whatever its rank
        r, p = exact * outside, ours * outside
        mass = r.sum(1, keepdim=True)
        total += float(torch.special.xlogy(r, r / (mass * p / p.sum(1, keepdim=True))).nan_to_num().sum())
        drift += float((exact * (exact / ours).log()).sum())
        tokens += len(exact)
    assert total / tokens > 1e-3
    assert found.kl == pytest.approx(total / tokens, rel=1e-3)
    assert found.student_kl == pytest.approx(drift / tokens, rel=1e-3)


def test_the_bias_falls_with_k_and_zero_fill_is_worse(tmp_path: Path) -> None:
    few, many = measured(tmp_path, 4, 16).values()
    assert many.kl < few.kl
    assert few.worst_cosine < many.worst_cosine < 1
    for bias in (few, many):
        assert bias.worst_cosine <= bias.cosine
        assert bias.zero_fill_cosine < bias.cosine
