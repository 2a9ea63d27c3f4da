"""The order of the data depends on the seed alone, and micro-batches only cut it."""

from __future__ import annotations

import pytest
import torch

from qtarget.spaces import presets
from qtarget.trainers.data.batches import BatchOrder
from qtarget.trainers.data.demonstrations import IGNORE_INDEX
from qtarget.trainers.loop.objective import Objective


def flat(batches, name):
    return torch.cat([getattr(batch, name) for batch in batches])


def test_an_epoch_visits_every_demonstration_once(sums):
    order = BatchOrder(sums, 8, seed=1, pad_token_id=0)
    epoch = [index for step in range(5) for index in order.at(step).indices]
    assert sorted(epoch) == list(range(40))
    following = [index for step in range(5, 10) for index in order.at(step).indices]
    assert sorted(following) == list(range(40))
    assert following != epoch


def test_batches_larger_than_the_data_wrap_around(sums):
    few = type(sums)(sums.examples[:3], 3)
    indices = BatchOrder(few, 7, seed=1, pad_token_id=0).at(0).indices
    assert sorted(indices.count(index) for index in range(3)) == [2, 2, 3]


def test_the_order_is_that_of_the_seed(sums):
    def indices(seed):
        return [BatchOrder(sums, 8, seed, 0).at(step).indices for step in range(3)]

    assert indices(1) == indices(1)
    assert indices(1) != indices(2)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_micro_batches_hold_the_same_tokens_in_the_same_order(sums, size):
    batch = BatchOrder(sums, 8, seed=1, pad_token_id=0).at(0)
    whole, cut = list(batch.micro_batches(8)), list(batch.micro_batches(size))
    assert len(cut) == 8 // size
    for name in ("flat_labels", "sequence_ids", "indices"):
        assert torch.equal(flat(cut, name), flat(whole, name))
    assert batch.num_tokens == len(flat(cut, "flat_labels"))


def test_ranks_share_the_micro_batches(sums):
    batch = BatchOrder(sums, 8, seed=1, pad_token_id=0).at(0)
    whole = flat(list(batch.micro_batches(2)), "indices").tolist()
    parts = [flat(list(batch.micro_batches(2, rank=rank, ranks=3)), "indices").tolist() for rank in range(3)]
    assert sorted(index for part in parts for index in part) == sorted(whole)
    assert [len(part) for part in parts] == [4, 2, 2]


def test_the_numbers_of_demonstrations_stay_where_they_are_looked_up(sums):
    """A batch on a device, one without content here: reading its numbers must not wait for the device."""
    (batch,) = BatchOrder(sums, 8, seed=1, pad_token_id=0).at(0).micro_batches(8)
    moved = batch.to(torch.device("meta"))
    assert moved.inputs.is_meta and moved.labels.is_meta and moved.positions.is_meta
    assert moved.indices.tolist() == batch.indices.tolist()


def test_padding_carries_no_loss(sums):
    (batch,) = BatchOrder(sums, 8, seed=1, pad_token_id=0).at(0).micro_batches(8)
    lengths = [sums[index].length for index in batch.indices.tolist()]
    assert lengths == sorted(lengths, reverse=True)
    for row, length in enumerate(lengths):
        assert (batch.labels[row, length:] == IGNORE_INDEX).all()
        assert (batch.inputs[row, length:] == 0).all()
    assert torch.equal(batch.labels[batch.valid], batch.flat_labels)
    assert torch.equal(batch.valid.nonzero()[:, 0], batch.sequence_ids)


@pytest.mark.parametrize("preset", ["sft", "dft", "iw_sft", "sft_kl", "target_sft", "eaft"])
def test_gradients_do_not_depend_on_the_micro_batch(make_model, sums, preset):
    from qtarget.trainers.teachers.sources import FrozenModel

    other = FrozenModel(make_model(seed=5))
    gradients = []
    for size in (8, 4, 1):
        model = make_model()
        objective = Objective(model, reference=other, teacher=other)
        batch = BatchOrder(sums, 8, seed=1, pad_token_id=0).at(0)
        for micro in batch.micro_batches(size):
            (objective.loss(micro, presets.get(preset)).loss_sum / batch.num_tokens).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    scale = gradients[0].abs().max()
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).abs().max() <= 1e-6 * max(1.0, float(scale))
