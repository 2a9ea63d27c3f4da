"""Attention of packed sequences and norms in the cache, against torch's own in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from qtarget.spaces import presets
from qtarget.trainers.data.batches import BatchOrder, collate
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.loop.packing import laid_out, pack
from qtarget.trainers.models import block_attention as module
from qtarget.trainers.models.block_attention import block_attention
from qtarget.trainers.models.head import BY_SEQUENCE, decoder_of
from qtarget.trainers.models.rms_norm import CACHED_ENTRIES, cached_norms, rms_norm

LENGTHS = (5, 17, 40, 1, 17)
BATCHES = [(1, LENGTHS), (1, (17, 17, 17, 9, 9)), (1, (31, 31, 28, 26, 3)), (5, (19,)), (3, (1,))]
"""Rows of a batch, and the sequences of each."""


def inputs(heads, key_heads, dtype, spread=1.0, width=8, number=1, lengths=LENGTHS):
    """Queries, keys and values of a batch, as projections leave them in memory, and a gradient."""
    generator = torch.Generator().manual_seed(0)

    def rows(heads):
        return spread * torch.randn(number, sum(lengths), heads, width, generator=generator, dtype=torch.float64)

    query, key, value = (rows(each).to(dtype).transpose(1, 2) for each in (heads, key_heads, key_heads))
    return [each.requires_grad_() for each in (query, key, value)], rows(heads).to(dtype)


def by_torch(rows, gradient, scale, lengths=LENGTHS):
    """The same in float64: out and gradients."""
    rows = [each.detach().double().requires_grad_() for each in rows]
    parts = zip(*(each.split(lengths, 2) for each in rows), strict=True)
    found = [scaled_dot_product_attention(*part, is_causal=True, scale=scale, enable_gqa=True) for part in parts]
    out = torch.cat(found, 2).transpose(1, 2)
    return [out, *torch.autograd.grad(out, rows, gradient.double())]


def error(mine, other):
    return float((mine.double() - other).detach().norm() / other.detach().norm())


@pytest.mark.parametrize(("number", "lengths"), BATCHES)
@pytest.mark.parametrize("block", [1, 2500, 2**20])  # the second holds two sequences of most of these
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 2), (3, 3), (4, 1)])
def test_attention_of_sequences_is_torchs_of_each(monkeypatch, heads, key_heads, block, number, lengths):
    monkeypatch.setattr(module, "BLOCK_ENTRIES", block)
    rows, gradient = inputs(heads, key_heads, torch.float64, number=number, lengths=lengths)
    out = block_attention(*rows, lengths, 0.3)
    mine = [out, *torch.autograd.grad(out, rows, gradient)]
    for each, other in zip(mine, by_torch(rows, gradient, 0.3, lengths), strict=True):
        torch.testing.assert_close(each, other, atol=1e-13, rtol=1e-12)


def test_sequences_of_about_one_length_are_worked_out_together():
    runs = list(module._runs(1, (31, 31, 28, 26, 9, 3), heads=2))
    assert [(run.number, run.length) for run in runs] == [(2, 31), (1, 28), (1, 26), (1, 9), (1, 3)]
    assert [sum(run.number for run in group) for group in module._groups(runs, heads=2)] == [4, 2]
    assert [run.number for run in module._runs(5, (600,), heads=1)] == [2, 2, 1], "no more than the cache holds"


@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])  # the last: nearly one-hot
def test_half_precision_is_as_exact_as_torchs_own(spread):
    rows, gradient = inputs(6, 2, torch.bfloat16, spread, width=64)
    out = block_attention(*rows, LENGTHS, 0.125)
    mine = [out, *torch.autograd.grad(out, rows, gradient)]
    parts = zip(*(each.split(LENGTHS, 2) for each in rows), strict=True)
    found = [scaled_dot_product_attention(*part, is_causal=True, scale=0.125, enable_gqa=True) for part in parts]
    own = torch.cat(found, 2).transpose(1, 2)
    theirs = [own, *torch.autograd.grad(own, rows, gradient)]
    for each, other, exact in zip(mine, theirs, by_torch(rows, gradient, 0.125), strict=True):
        assert error(each, exact) <= max(0.008, 2 * error(other, exact))


def test_norms_are_the_models_own_bit_for_bit_and_their_gradients_no_less_exact():
    norm = LlamaRMSNorm(32).to(torch.bfloat16)
    torch.manual_seed(0)
    torch.nn.init.normal_(norm.weight)
    hidden = torch.randn(3, CACHED_ENTRIES // 32, 32).to(torch.bfloat16).requires_grad_()
    gradient = torch.randn(hidden.shape).to(torch.bfloat16)
    out, own = rms_norm(hidden, norm.weight, norm.variance_epsilon), norm(hidden)
    assert torch.equal(out, own)
    exact = [each.detach().double().requires_grad_() for each in (hidden, norm.weight)]
    wide = exact[1] * exact[0] * (exact[0].square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    expected = torch.autograd.grad(wide, exact, gradient.double())
    mine, theirs = (torch.autograd.grad(each, (hidden, norm.weight), gradient) for each in (out, own))
    for each, other, true in zip(mine, theirs, expected, strict=True):
        assert error(each, true) <= error(other, true)


def test_only_norms_of_this_form_in_half_precision_are_changed_and_only_inside(make_model):
    model, wide = make_model(dtype=torch.bfloat16), make_model()
    model.other = GemmaRMSNorm(8).to(torch.bfloat16)  # 1 + w
    torch.nn.init.normal_(model.other.weight)
    norms = [each for each in model.modules() if isinstance(each, LlamaRMSNorm)]
    with cached_norms([model, wide, model]):
        assert norms and all("forward" in each.__dict__ for each in norms)
        assert not any("forward" in each.__dict__ for each in [model.other, *wide.modules()])
        twin = copy.deepcopy(model)
    assert not any("forward" in each.__dict__ for each in model.modules())
    norm, mine = twin.model.norm, norms[-1]
    torch.nn.init.normal_(norm.weight)
    hidden = torch.randn(2, norm.weight.shape[0]).to(torch.bfloat16)
    assert torch.equal(norm(hidden), type(norm).forward(norm, hidden)), "a copy has weights of its own"
    assert not torch.equal(norm(hidden), mine(hidden))


def test_a_half_precision_model_learns_what_it_would_from_sequences_by_themselves(make_model, sums):
    found = {}
    for name, dtype, layout in (("exact", torch.float64, collate), ("padded", torch.bfloat16, collate),
                                ("packed", torch.bfloat16, pack)):  # fmt: skip
        model = make_model(dtype=torch.bfloat16).to(dtype).train()
        part = next(BatchOrder(sums, 8, seed=3, pad_token_id=0, layout=layout).at(0).micro_batches(8))
        with laid_out([model], None if layout is pack else collate):
            assert decoder_of(model).config._attn_implementation == BY_SEQUENCE
            total = Objective(model).loss(part, presets.get("sft")).loss_sum
            gradients = torch.autograd.grad(total, list(model.parameters()))
            found[name] = torch.cat([each.double().flatten() for each in gradients])
    assert error(found["packed"], found["exact"]) <= 1.2 * error(found["padded"], found["exact"]) < 0.05
