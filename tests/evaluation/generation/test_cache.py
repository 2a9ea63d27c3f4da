"""The cache against transformers' own, and the rebuilding of batches against plain indexing."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from qtarget.evaluation.generation.cache import new_cache, rebuild


def states(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 2, rows, 3, columns, 4, generator=generator)  # layers, key or value, rows, heads, ...


def filled(cache, content):
    for layer, (keys, values) in enumerate(content):
        cache.update(keys, values, layer)
    return cache


def content_of(cache):
    return torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])


def test_appending_equals_transformers_own_cache():
    ours, theirs = filled(new_cache(), states(3, 5, 0)), filled(DynamicCache(), states(3, 5, 0))
    for step in range(150):  # past several growths of the buffers
        filled(ours, states(3, 1, step)), filled(theirs, states(3, 1, step))
    assert ours.get_seq_length() == theirs.get_seq_length() == 155
    assert torch.equal(content_of(ours), content_of(theirs))


def test_rows_are_kept_repeated_and_aligned_on_the_right():
    long, short = states(4, 9, 1), states(2, 5, 2)
    joined = rebuild([(filled(new_cache(), long), [3, 1], 2), (filled(new_cache(), short), [0, 0, 1], 0)])
    found = content_of(joined)
    assert found.shape == (2, 2, 5, 3, 7, 4)
    assert torch.equal(found[:, :, :2], long[:, :, [3, 1], :, 2:])
    assert torch.equal(found[:, :, 2:, :, 2:], short[:, :, [0, 0, 1]])
    assert not found[:, :, 2:, :, :2].any()


@pytest.mark.parametrize("columns", [1, 70])
def test_a_rebuilt_cache_goes_on_growing(columns):
    first, more = states(3, 6, 3), states(2, columns, 4)
    grown = filled(rebuild([(filled(new_cache(), first), [0, 2], 1)]), more)
    assert torch.equal(content_of(grown), torch.cat([first[:, :, [0, 2], :, 1:], more], dim=-2))


def test_the_sources_let_go_of_their_memory():
    source = filled(new_cache(), states(3, 6, 5))
    rebuild([(source, [0], 0)])
    assert all(layer.keys is None and layer.values is None for layer in source.layers)
