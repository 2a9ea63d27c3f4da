"""What is kept of a row of logits, against float64 and sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtarget.trainers.teachers.rows import summarise


def oracle(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 50), st.sampled_from([0.0, 0.01, 0.3, 0.9]))
def test_rows_against_sorting_in_float64(seed: int, vocab: int, k: int, tail_mass: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, vocab, generator=generator)
    labels = torch.randint(0, vocab, (4,), generator=generator)
    rows = summarise(logits, labels, k=k, tail_mass=tail_mass)
    for row in range(4):
        probs = oracle(logits[row].double().numpy())
        order = np.argsort(-probs, kind="stable")
        outside = 1 - np.cumsum(probs[order])
        kept = int(rows.counts[row])
        assert 1 <= kept <= min(k, vocab)
        np.testing.assert_allclose(rows.logprobs[row, :kept].exp().numpy(), probs[order][:kept], rtol=1e-4)
        np.testing.assert_allclose(probs[rows.ids[row, :kept].numpy()], probs[order][:kept], rtol=1e-6)
        assert rows.log_tail[row].exp().item() == pytest.approx(outside[kept - 1], abs=1e-6)
        assert kept == min(k, vocab) or outside[kept - 1] <= tail_mass + 1e-6
        assert kept == 1 or outside[kept - 2] > tail_mass - 1e-6, "fewer entries would do"
        assert rows.entropy[row].item() == pytest.approx(-(probs * np.log(probs)).sum(), abs=1e-4)
        assert rows.label_logprob[row].exp().item() == pytest.approx(probs[labels[row]], rel=1e-4)


def test_a_tiny_tail_is_not_lost_to_cancellation() -> None:
    logits = torch.full((1, 50), -30.0)
    logits[0, 7] = 0.0
    rows = summarise(logits, torch.tensor([7]), k=3)
    assert rows.log_tail.item() == pytest.approx(-30 + np.log(47), abs=1e-4)  # 1 - sum(kept) would be 0 in float32


def test_all_entries_leave_no_tail() -> None:
    rows = summarise(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(5).long(), k=99)
    assert rows.log_tail.tolist() == [-torch.inf] * 5
    assert rows.counts.tolist() == [8] * 5


def test_impossible_entries_are_not_kept() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]])
    rows = summarise(logits, torch.tensor([0]), k=4)
    assert rows.counts.tolist() == [2]
    assert rows.entropy.item() == pytest.approx(0.5822, abs=1e-4)


def test_improbable_entries_are_left_in_the_tail() -> None:
    probs = torch.tensor([[0.6, 0.3, 0.06, 0.04], [0.25, 0.25, 0.25, 0.25], [0.01, 0.9, 0.04, 0.05]])
    rows = summarise(probs.log(), torch.tensor([0, 0, 0]), k=3, min_prob=0.05 - 1e-6)
    assert rows.counts.tolist() == [3, 3, 2]
    torch.testing.assert_close(rows.log_tail.exp(), torch.tensor([0.04, 0.25, 0.05]))
    assert summarise(probs.log(), torch.tensor([0, 0, 0]), k=3, min_prob=0.95).counts.tolist() == [1, 1, 1]
