"""The noise of sampling: uniform, Gumbel, independent across coordinates, and a draw from the softmax."""

import numpy as np
import pytest
import torch
from scipy import stats

from qtarget.evaluation.generation.sampling import choose, gumbel, sequence_key, uniform

MASK64, MASK32 = (1 << 64) - 1, (1 << 32) - 1


def reference_uniform(key: int, position: int, token: int) -> float:
    """The same hash in Python's unbounded integers: splitmix64 for the row, then triple32 with the row's words."""
    state = (key + position * 0x9E3779B97F4A7C15) & MASK64
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK64
    state ^= state >> 31
    word = (token * 0x9E3779B1 + state) & MASK32
    word = ((word ^ word >> 17) * 0xED5AD4BB + (state >> 32)) & MASK32
    word = ((word ^ word >> 11) * 0xAC4C1B51) & MASK32
    word = ((word ^ word >> 15) * 0x31848BAB) & MASK32
    word = (word ^ word >> 14) & 0x7FFFFFFF
    return (word + 0.5) * 2.0**-31


def keys_of(count: int) -> torch.Tensor:
    return torch.tensor([sequence_key(0, f"problem {i}", 0) for i in range(count)])


def test_hash_equals_the_unbounded_reference():
    keys = keys_of(3)
    positions = torch.tensor([0, 1, 777])
    noise = uniform(keys, positions, 50)
    expected = [[reference_uniform(int(k), int(p), v) for v in range(50)] for k, p in zip(keys, positions, strict=True)]
    np.testing.assert_allclose(noise.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("axis", ["token", "position", "key"])
def test_noise_is_uniform_along_every_coordinate(axis):
    count = 200_000
    if axis == "token":
        noise = uniform(keys_of(1), torch.tensor([5]), count)
    elif axis == "position":
        noise = uniform(keys_of(1).expand(count), torch.arange(count), 1)
    else:
        noise = uniform(keys_of(2000), torch.zeros(2000, dtype=torch.int64), 100)
    flat = noise.flatten().double().numpy()
    assert stats.kstest(flat, "uniform").pvalue > 1e-3
    assert flat.min() > 0 and flat.max() < 1
    correlation = np.corrcoef(flat[:-1], flat[1:])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(count)


def test_rows_are_independent():
    noise = uniform(keys_of(40), torch.zeros(40, dtype=torch.int64), 20_000).double().numpy()
    off_diagonal = np.corrcoef(noise)[np.triu_indices(40, 1)]
    assert stats.kstest(off_diagonal * np.sqrt(20_000), "norm").pvalue > 1e-3


def test_gumbel_noise_has_the_gumbel_distribution_and_is_finite():
    noise = gumbel(keys_of(20), torch.arange(20), 50_000)
    assert torch.isfinite(noise).all()
    assert stats.kstest(noise.flatten().double().numpy(), "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choices_follow_the_softmax(temperature):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -30.0])
    count = 40_000
    keys = keys_of(8).repeat_interleave(count // 8)
    positions = torch.arange(count // 8).repeat(8)
    chosen = choose(logits.expand(count, -1), temperature, keys, positions)
    expected = (logits.double() / temperature).softmax(-1)[:5].numpy() * count
    observed = torch.bincount(chosen, minlength=6).numpy()
    assert observed[5] == 0 or temperature > 1
    assert stats.chisquare(observed[:5], expected * observed[:5].sum() / expected.sum()).pvalue > 1e-3


def test_temperature_zero_is_argmax_and_ignores_the_noise():
    logits = torch.randn(16, 30, generator=torch.Generator().manual_seed(0))
    for shift in (0, 99):
        assert torch.equal(choose(logits, 0.0, keys_of(16), torch.full((16,), shift)), logits.argmax(-1))


def test_noise_is_that_of_the_row_whatever_the_batch():
    keys, positions = keys_of(10), torch.arange(10)
    together = gumbel(keys, positions, 200)
    alone = torch.cat([gumbel(keys[i : i + 1], positions[i : i + 1], 200) for i in range(10)])
    assert torch.equal(together, alone)


def test_keys_differ_by_seed_problem_and_sample():
    keys = {sequence_key(seed, problem, sample) for seed in (0, 1) for problem in ("a", "b") for sample in (0, 1)}
    assert len(keys) == 8
    assert all(0 <= key < 1 << 63 for key in keys)


def test_common_noise_makes_two_similar_models_agree_more_often():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 50, generator=generator)
    other = logits + 0.1 * torch.randn(4000, 50, generator=generator)
    keys, positions = keys_of(4000), torch.zeros(4000, dtype=torch.int64)
    first = choose(logits, 1.0, keys, positions)
    common = (first == choose(other, 1.0, keys, positions)).float().mean()
    independent = (first == choose(other, 1.0, keys, positions + 1)).float().mean()
    assert common > 0.85
    assert independent < 0.15
