"""Packed rows: no sequence sees another, and gradients are those of padded batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from qtarget.spaces import presets
from qtarget.trainers.data.batches import BatchOrder, collate
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.loop.packing import ROUND, USEFUL, laid_out, pack, pack_or_pad, pack_round, prepare_packing
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.attention import by_sequence, separable
from qtarget.trainers.models.head import BY_SEQUENCE, evaluating, hidden_states
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.teachers.sources import FrozenModel

DESIGNS = ["sft", "target_sft", "asft", "iw_sft", "talr", "psft"]
ATTENTION = {BY_SEQUENCE: 1e-10, "sdpa": 1e-10, "eager": 1e-7}  # the eager softmax is float32 whatever the model is


def gradients(model, batch, target, sources):
    objective = Objective(model, **sources)
    model.train()
    total = objective.loss(batch, target)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return total, dict(zip(names, torch.autograd.grad(total.loss_sum, parameters), strict=True))


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", DESIGNS[:-1])
def test_packed_gradients_are_those_of_padded_sequences(make_model, sums, name, attention):
    model = make_model(dtype=torch.float64)
    model.config._attn_implementation = attention
    sources = {"reference": FrozenModel(make_model(seed=1, dtype=torch.float64)),
               "teacher": FrozenModel(make_model(seed=2, dtype=torch.float64))}  # fmt: skip
    order = BatchOrder(sums, 8, seed=3, pad_token_id=0)
    padded = next(order.at(0).micro_batches(8))
    packed = next(BatchOrder(sums, 8, seed=3, pad_token_id=0, layout=pack).at(0).micro_batches(8))
    assert packed.inputs.shape[0] == 1 and packed.inputs.numel() < padded.inputs.numel()
    assert torch.equal(packed.flat_labels, padded.flat_labels)
    assert torch.equal(packed.sequence_ids, padded.sequence_ids)
    mine, other = (gradients(model, batch, presets.get(name), sources) for batch in (packed, padded))
    torch.testing.assert_close(mine[0].loss_sum, other[0].loss_sum)
    for key, gradient in other[1].items():
        torch.testing.assert_close(mine[1][key], gradient, atol=ATTENTION[attention], rtol=1e-6)


def test_a_changed_neighbour_changes_nothing(make_model, sums):
    model = make_model()
    first, second, third = sums[0], sums[5], sums[9]
    with evaluating(model):
        rows = [pack(examples, range(2), 0) for examples in ([first, third], [second, third])]
        found = [hidden_states(model, row.inputs, row.position_ids)[0, -third.length :] for row in rows]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    with evaluating(model):
        leaking = hidden_states(model, rows[0].inputs)[0, -third.length :]
    assert (leaking - found[0]).abs().max() > 1e-3, "without positions the second sequence sees the first"


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("data", "layout"), [("sums", pack), ("asked_alike", None)], ids=["packed", "prefix shared"])
def test_a_packed_run_ends_with_the_weights_of_a_padded_one(request, make_model, data, layout, name):
    demonstrations = request.getfixturevalue(data)
    settings = TrainingSettings(steps=3, effective_batch=8, micro_batch=4, learning_rate=1e-3, old_policy_every=2)
    models = make_model(), make_model()
    for model, chosen in zip(models, (layout, collate), strict=True):
        train(model, demonstrations, presets.get(name), settings, seed=3, folder=None, layout=chosen,
              reference=FrozenModel(make_model(seed=1)), teacher=FrozenModel(make_model(seed=2)))  # fmt: skip
    for mine, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)


def test_without_a_gpu_the_attention_stays(make_model):
    model = make_model()
    assert prepare_packing(model) == model.config._attn_implementation == "sdpa"


def test_sequences_attend_by_themselves_wherever_the_model_allows(make_model):
    model, reference = make_model(), make_model(seed=1)
    with laid_out([model, reference, model], None) as layout:
        assert layout is pack_or_pad
        assert model.config._attn_implementation == reference.config._attn_implementation == BY_SEQUENCE
    assert model.config._attn_implementation == reference.config._attn_implementation == "sdpa"
    reference.set_attn_implementation("eager")
    with laid_out([model, reference], None) as layout:
        assert layout is None
    with laid_out([model, reference], pack) as layout:
        assert (layout, reference.config._attn_implementation) == (pack, "eager")


def test_a_model_that_looks_along_the_row_is_found_out(make_model):
    model = make_model()

    def shifted(module, arguments, output):  # a convolution over positions knows no sequences
        return output + output.roll(1, 1)

    model.model.embed_tokens.register_forward_hook(shifted)
    assert not separable(model)
    chunked = make_model()
    chunked.config.layer_types = ["chunked_attention"] * chunked.config.num_hidden_layers
    assert not separable(chunked)


@pytest.mark.parametrize("window", [2, 64])
def test_a_layer_with_a_window_keeps_it(window):
    config = MistralConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, head_dim=8,
                           num_attention_heads=2, num_key_value_heads=1, sliding_window=window)  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).double()
    lengths = (9, 9, 5)
    inputs = torch.arange(sum(lengths))[None]
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    with evaluating(model):
        alone = torch.cat([hidden_states(model, part) for part in inputs.split(lengths, 1)], 1)
        with by_sequence([model]):
            torch.testing.assert_close(hidden_states(model, inputs, places, lengths), alone)
            padded = hidden_states(model, inputs.reshape(1, -1))
        torch.testing.assert_close(padded, hidden_states(model, inputs))


def test_padding_that_costs_next_to_nothing_stays(sums):
    examples = sorted(sums, key=lambda example: example.length)
    assert pack_or_pad(examples[-1:] * 2, [0, 0], 0, share=False).lengths is None
    assert pack_or_pad(examples[-1:], [0], 0).lengths is None
    mixed = [examples[0], examples[-1], examples[-1]]
    assert mixed[0].length < (3 * USEFUL - 2) * mixed[1].length
    assert pack_or_pad(mixed, [0, 1, 2], 0).lengths == tuple(example.length for example in mixed)


def test_long_rows_in_half_precision_are_filled_up_to_a_round_length_that_teaches_nothing(make_model, sums):
    model = make_model(dtype=torch.bfloat16)
    with laid_out([model], None) as layout:
        assert layout is pack_round
    with laid_out([model, make_model()], None) as layout:
        assert layout is pack_or_pad
    examples = [replace(each, weights=torch.ones(len(each.token_ids))) for each in sums] * 3
    plain, filled = (lay_out(examples, range(120), 0, share=False) for lay_out in (pack_or_pad, pack_round))
    more = filled.inputs.numel() - plain.inputs.numel()
    assert 0 < more < ROUND and filled.inputs.numel() % ROUND == 0
    assert filled.lengths == (*plain.lengths, more)
    assert filled.position_ids[0, -more:].tolist() == list(range(more))
    for name in ("flat_labels", "sequence_ids", "flat_weights", "positions"):
        assert torch.equal(getattr(filled, name), getattr(plain, name))
    model = make_model(dtype=torch.float64)
    with by_sequence([model]):
        mine, other = (gradients(model, batch, presets.get("sft"), {})[1] for batch in (filled, plain))
    for key, gradient in other.items():
        torch.testing.assert_close(mine[key], gradient, atol=1e-10, rtol=1e-6)
    short = pack_round(examples[:3], range(3), 0)
    assert short.inputs.numel() == pack_or_pad(examples[:3], range(3), 0).inputs.numel(), "too dear for so few"
