"""Demonstrations that begin alike: computed once, what they begin with gives every gradient of the padded batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from qtarget.spaces import presets
from qtarget.trainers.data.batches import BatchOrder, collate
from qtarget.trainers.loop.objective import Objective
from qtarget.trainers.loop.packing import LEFT, ROUND, SHORTEST, common_prefix, laid_out, pack, pack_or_pad, pack_round
from qtarget.trainers.models.attention import by_sequence, separable
from qtarget.trainers.models.head import evaluating, hidden_states
from qtarget.trainers.models.lora import attach_lora
from qtarget.trainers.models.shared_prefix import gathered, spread
from qtarget.trainers.settings import LoraSettings
from qtarget.trainers.teachers.sources import FrozenModel

DESIGNS = ["sft", "target_sft", "asft", "iw_sft", "talr"]
SYSTEM = "please add "  # what `asked_alike` begins with
CLOSE = {"atol": 1e-6, "rtol": 1e-4}
"""Norms of these models are float32 whatever the model is: they round a sum over sequences, not each summand."""


def batch_of(data, layout, size=8):
    return next(BatchOrder(data, size, seed=3, pad_token_id=0, layout=layout).at(0).micro_batches(size))


def learnt(model, batch, target, **sources):
    """The loss, and by name the gradients of all weights."""
    objective = Objective(model, **sources)
    model.train()
    total = objective.loss(batch, target)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return total.loss_sum, dict(zip(names, torch.autograd.grad(total.loss_sum, parameters), strict=True))


def mistral(window: int | None, dtype=torch.float64):
    config = MistralConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, head_dim=8,
                           num_attention_heads=2, num_key_value_heads=1, sliding_window=window)  # fmt: skip
    torch.manual_seed(0)
    return MistralForCausalLM(config).to(dtype)


def test_the_prefix_is_computed_once(asked_alike):
    padded, shared = (batch_of(asked_alike, layout) for layout in (collate, pack_or_pad))
    begins = shared.inputs[0, : shared.prefix]
    assert len(SYSTEM) < shared.prefix < shared.labels[0].ne(-100).int().argmax()
    assert all(torch.equal(row[: shared.prefix], begins) for row in padded.inputs)
    assert shared.inputs.numel() == sum(shared.lengths) - 7 * shared.prefix
    assert shared.position_ids[0, shared.lengths[0]] == shared.prefix, "the second sequence goes on behind it"
    for name in ("flat_labels", "sequence_ids"):
        assert torch.equal(getattr(shared, name), getattr(padded, name))


@pytest.mark.parametrize("name", DESIGNS)
def test_gradients_are_those_of_padded_sequences(make_model, asked_alike, name):
    model = make_model(dtype=torch.float64)
    sources = {"reference": FrozenModel(make_model(seed=1, dtype=torch.float64)),
               "teacher": FrozenModel(make_model(seed=2, dtype=torch.float64))}  # fmt: skip
    with laid_out([model, *(each.model for each in sources.values())], None) as layout:
        shared, padded = batch_of(asked_alike, layout), batch_of(asked_alike, collate)
        assert shared.prefix
        mine, other = (learnt(model, batch, presets.get(name), **sources) for batch in (shared, padded))
    torch.testing.assert_close(mine[0], other[0])
    for key, gradient in other[1].items():
        torch.testing.assert_close(mine[1][key], gradient, **CLOSE)


@pytest.mark.parametrize("window", [None, 3, 64])
def test_layers_with_a_window_see_no_more_of_the_prefix_than_it_allows(asked_alike, window):
    model = mistral(window)
    with laid_out([model], None) as layout:
        shared, padded = batch_of(asked_alike, layout), batch_of(asked_alike, collate)
        assert shared.prefix > 3
        mine, other = (learnt(model, batch, presets.get("sft"))[1] for batch in (shared, padded))
    for key, gradient in other.items():
        torch.testing.assert_close(mine[key], gradient, **CLOSE)


def test_in_half_precision_gradients_are_as_exact_as_padded_ones(make_model, asked_alike):
    model, exact = make_model(dtype=torch.bfloat16), make_model(dtype=torch.bfloat16).double()
    with laid_out([model], None) as layout:
        shared, padded = batch_of(asked_alike, layout), batch_of(asked_alike, collate)
        assert shared.prefix and shared.inputs.numel() < padded.inputs.numel()
        mine, other = (learnt(model, batch, presets.get("sft"))[1] for batch in (shared, padded))
    expected = learnt(exact, padded, presets.get("sft"))[1]
    for key, gradient in expected.items():
        errors = [float((found[key].double() - gradient).norm() / gradient.norm()) for found in (mine, other)]
        assert errors[0] < max(1.3 * errors[1], 0.01), key


def test_what_is_learnt_is_never_shared(asked_alike):
    same = [asked_alike[3]] * 4
    assert common_prefix(same) == asked_alike[3].first_label
    learnt_from_the_start = replace(same[0], completion=torch.ones_like(same[0].completion))
    assert common_prefix([learnt_from_the_start] * 4) == 0
    unlike = replace(same[0], token_ids=same[0].token_ids.flip(0))
    assert common_prefix([*same, unlike]) == 0
    assert common_prefix(same[:1]) == 0, "alone it has nobody to share with"


def test_a_short_prefix_is_not_worth_it(sums, asked_alike):
    assert common_prefix(list(sums)[:8]) == 0, "they begin with one token alike"
    few = list(asked_alike)[:8]
    prefix = common_prefix(few)
    cut = prefix - SHORTEST
    for more, expected in ((0, SHORTEST), (1, 0)):
        begun = [replace(each, token_ids=each.token_ids[cut + more :], completion=each.completion[cut + more :])
                 for each in few]  # fmt: skip
        assert common_prefix(begun) == expected
    long = [replace(each, token_ids=torch.cat([each.token_ids] * 9), completion=torch.cat([each.completion] * 9))
            for each in few]  # fmt: skip
    assert prefix * 7 < (1 - LEFT) * sum(each.length for each in long) and common_prefix(long) == 0


@pytest.mark.parametrize("layout", [pack_or_pad, pack_round])
def test_rows_of_one_length_share_too(asked_alike, layout):
    shortest = min(each.length for each in asked_alike)
    examples = [each for each in asked_alike if each.length == shortest][:4]
    assert len(examples) == 4
    batch = layout(examples, range(4), 0)
    assert batch.prefix and batch.inputs.numel() < 4 * shortest + ROUND
    assert layout(examples, range(4), 0, share=False).lengths is None


def test_filling_up_to_a_round_length_teaches_nothing(make_model, asked_alike):
    model = make_model(dtype=torch.float64)
    examples = list(asked_alike) * 3
    plain, filled = (lay_out(examples, range(120), 0) for lay_out in (pack_or_pad, pack_round))
    more = filled.inputs.numel() - plain.inputs.numel()
    assert 0 < more < ROUND and filled.lengths == (*plain.lengths, plain.prefix + more)
    with by_sequence([model]):
        mine, other = (learnt(model, batch, presets.get("sft"))[1] for batch in (filled, plain))
    for key, gradient in other.items():
        torch.testing.assert_close(mine[key], gradient, **CLOSE)


def test_dropout_is_drawn_for_each_sequence(make_model, asked_alike):
    adapted = attach_lora(make_model(), LoraSettings(rank=2, dropout=0.1), seed=0)
    plain, attending, by_function = make_model(), make_model(), make_model()
    attending.config.attention_dropout = by_function.config.dropout = 0.1
    for models in ([adapted], [plain, attending], [by_function]):
        with laid_out(models, None) as layout:
            batch = batch_of(asked_alike, layout)
            assert batch.lengths is not None and not batch.prefix, "packed, but nothing is shared"
    with laid_out([plain], None) as layout:
        assert batch_of(asked_alike, layout).prefix


def test_a_model_that_does_not_attend_by_sequence_is_refused_a_prefix(make_model, asked_alike):
    batch = pack(list(asked_alike)[:4], range(4), 0, prefix=5)
    with pytest.raises(ValueError, match="share a prefix only in a model that attends by sequence"):
        hidden_states(make_model(), *batch.read)


def test_a_layer_that_looks_beside_its_position_is_found_out_behind_a_prefix(make_model):
    """Sequences by themselves hide it: only behind a shared token is a neighbour another one than alone."""
    model = make_model()

    def beside(module, arguments, output):
        earlier = output.roll(1, 1)
        earlier[:, 0] = output[:, 0]
        return output + earlier

    model.model.embed_tokens.register_forward_hook(beside)
    with evaluating(model):
        assert hidden_states(model, torch.arange(3)[None]).shape == (1, 3, 32)
    assert not separable(model)


def test_spread_and_gathered_by_their_definition():
    """(prefix 0 1, own 2 | own 3 4): three and four positions; gradients of copies add up."""
    rows = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    lengths = (3, 4)
    whole = spread(rows, lengths, 2)
    assert torch.equal(whole, rows[:, :, [0, 1, 2, 0, 1, 3, 4]])
    assert torch.equal(gathered(whole.transpose(1, 2), lengths, 2), rows.transpose(1, 2))
    assert torch.autograd.gradcheck(lambda each: spread(each, lengths, 2), rows)
    assert torch.autograd.gradcheck(
        lambda each: gathered(each, lengths, 2), whole.detach().transpose(1, 2).requires_grad_()
    )
