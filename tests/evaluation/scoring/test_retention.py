"""Divergence from the base against a float64 computation of its own, with its error."""

import copy

import pytest
import torch
from tiny_llama import tiny_llama

from qtarget.evaluation.scoring.retention import _per_token, divergence, remembered, text_windows
from qtarget.spaces.errors import UserError
from qtarget.trainers.teachers.answers import Answers

WINDOWS = [[4, 5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17, 18], [20, 21, 22]]


def logits_of(model):
    return lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits


@pytest.fixture(scope="module")
def moved(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.add_(
            0.05 * torch.randn(other.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
    return other


def by_hand(model, base):
    """Window by window, in probabilities and float64."""
    kl = nll = tokens = 0.0
    with torch.no_grad():
        for window in WINDOWS:
            ids = torch.tensor([window])
            p = base(ids).logits[0, :-1].double().softmax(-1)
            q = model(ids).logits[0, :-1].double().softmax(-1)
            kl += float((p * (p / q).log()).sum())
            nll -= float(q[torch.arange(len(window) - 1), ids[0, 1:]].log().sum())
            tokens += len(window) - 1
    return kl / tokens, nll / tokens


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_divergence_equals_the_hand_computation_whatever_the_batch(model, moved, batch_size):
    found = divergence(moved, logits_of(model), WINDOWS, batch_size=batch_size)
    kl, nll = by_hand(moved, model)
    assert found.tokens == 14
    assert found.kl == pytest.approx(kl, rel=1e-4) and kl > 1e-3
    assert found.nll == pytest.approx(nll, rel=1e-5)
    assert found.base_nll == pytest.approx(by_hand(model, model)[1], rel=1e-5)


def test_the_standard_error_is_that_of_a_ratio_of_window_sums(model, moved):
    """Against the jackknife over windows, which knows nothing of the formula."""
    windows = [[*WINDOWS[0][: 2 + index % 4], 30 + index] for index in range(12)]
    found = divergence(moved, logits_of(model), windows)
    left_out = [divergence(moved, logits_of(model), windows[:i] + windows[i + 1 :]).kl for i in range(12)]
    jackknife = (11 / 12 * sum((value - sum(left_out) / 12) ** 2 for value in left_out)) ** 0.5
    assert found.standard_error == pytest.approx(jackknife, rel=0.1)
    assert divergence(moved, logits_of(model), windows[:1]).standard_error is None


@pytest.mark.parametrize("change", [1e-4, 1.0, 40.0])
def test_tiny_and_huge_divergences_are_exact(change):
    """Logits (rows, vocab) moved a little or so far that probabilities vanish, against float64."""
    generator = torch.Generator().manual_seed(1)
    base = 3 * torch.randn(6, 50, generator=generator)
    moved = base + change * torch.randn(6, 50, generator=generator)
    found = _per_token(moved, base, torch.zeros(6, dtype=torch.int64))[:, 0]
    p, q = base.double().log_softmax(-1), moved.double().log_softmax(-1)
    assert found.tolist() == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), rel=2e-3)


def test_a_model_does_not_diverge_from_itself(model):
    assert divergence(model, logits_of(model), WINDOWS).kl == pytest.approx(0, abs=1e-7)


def test_divergence_is_charged_in_the_direction_of_the_base(model, moved):
    forward = divergence(moved, logits_of(model), WINDOWS).kl
    backward = divergence(model, logits_of(moved), WINDOWS).kl
    assert forward != pytest.approx(backward, rel=1e-3)


def test_rows_in_chunks_give_the_same_sum(model, moved, monkeypatch):
    whole = divergence(moved, logits_of(model), WINDOWS)
    monkeypatch.setattr("qtarget.evaluation.scoring.retention._ROWS", 3)
    assert divergence(moved, logits_of(model), WINDOWS).kl == pytest.approx(whole.kl, rel=1e-6)


def test_training_mode_is_restored(tokenizer):
    model = tiny_llama(2, len(tokenizer)).train()
    divergence(model, logits_of(tiny_llama(2, len(tokenizer))), WINDOWS)
    assert model.training


def test_text_is_cut_into_windows(tokenizer):
    windows = text_windows(tokenizer, ["1" * 10, "2", "3" * 5], length=4)
    assert [len(window) for window in windows] == [4, 4, 2, 4]
    assert tokenizer.decode(windows[3]) == "3333"


def test_no_text_is_refused(model):
    with pytest.raises(UserError, match="at least two tokens"):
        divergence(model, logits_of(model), [])


def test_the_base_is_asked_once_as_far_as_memory_goes(model, moved) -> None:
    asked = []

    def base(ids, mask):
        asked.append(logits_of(model)(ids, mask))
        return asked[-1]

    alone = divergence(moved, base, WINDOWS, batch_size=1)
    assert len(asked) == len(WINDOWS)
    kept = remembered(base, Answers())
    assert divergence(moved, kept, WINDOWS, batch_size=1) == alone == divergence(moved, kept, WINDOWS, batch_size=1)
    assert len(asked) == 2 * len(WINDOWS), "the second trial finds what the first one asked"
    little = remembered(base, Answers(asked[0].nbytes))
    assert divergence(moved, little, WINDOWS, batch_size=1) == alone == divergence(moved, little, WINDOWS, batch_size=1)
    assert len(asked) == 4 * len(WINDOWS) - 1, "the longest window fits"
