"""The packed form: ids of any width, sections back in place, the promised size."""

import numpy as np
import pytest
from cache_world import demonstrations, key
from hypothesis import given
from hypothesis import strategies as st

from qtarget.trainers.teachers.format import (
    SPARE_ID_BYTES,
    ShardArrays,
    ShardEntry,
    decode,
    encode,
    pack_ids,
    packed_bytes,
    shard_bytes,
    unpack_ids,
)


@given(st.integers(1, 25).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1)))))
def test_packed_ids_are_one_little_endian_number(case: tuple[int, list[int]]) -> None:
    bits, ids = case
    packed = pack_ids(np.array(ids, np.int64), bits)
    number = sum(value << (bits * place) for place, value in enumerate(ids))
    assert packed.tobytes() == number.to_bytes((len(ids) * bits + 7) // 8, "little") + bytes(SPARE_ID_BYTES)
    assert len(packed) == packed_bytes(len(ids), bits)
    order = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(unpack_ids(packed, order, bits), np.array(ids, np.int64)[order])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_sections_come_back(dtype: str) -> None:
    cache_key = key(demonstrations(), dtype=dtype, vocab=1000)
    rng = np.random.default_rng(1)
    counts = np.array([3, 1, 2, 2, 1], np.uint16)
    logprobs = rng.normal(size=9).astype(dtype)
    ids = rng.integers(0, 1000, 9)
    scalars = rng.normal(size=(3, 5)).astype(dtype)
    arrays = ShardArrays(np.array([2, 3], np.uint32), counts, scalars, logprobs, pack_ids(ids, cache_key.bits))
    data = np.frombuffer(b"".join(encode(cache_key, arrays)), np.uint8)
    assert len(data) == shard_bytes(cache_key, 2, 5, 9)
    entry = ShardEntry(name="s", first=0, examples=2, tokens=5, entries=9, tail_mass=0.0, bytes=len(data), sha256="")
    back = decode(cache_key, entry, data)
    for name in ("lengths", "counts", "scalars", "logprobs", "ids"):
        np.testing.assert_array_equal(getattr(back, name), getattr(arrays, name))
    np.testing.assert_array_equal(unpack_ids(back.ids, np.arange(9), cache_key.bits), ids)


def test_a_token_of_a_large_vocabulary_takes_at_most_300_bytes() -> None:
    cache_key = key(demonstrations(), k=64, vocab=151_936, dtype="float16")
    assert cache_key.bits == 18
    assert cache_key.max_bytes_per_token == 2 + 6 + 64 * (2 + 18 / 8) == 280
    assert shard_bytes(cache_key, 1000, 100_000, 6_400_000) / 100_000 < 281


@pytest.mark.parametrize(("dtype", "width"), [("float16", 2), ("float32", 4)])
def test_labels_alone_take_a_number_a_token(dtype: str, width: int) -> None:
    cache_key = key(demonstrations(), dtype=dtype, content="label")
    label = -np.random.default_rng(1).random((1, 7)).astype(dtype) * 9
    nothing = np.zeros(0, np.uint8)
    arrays = ShardArrays(np.array([3, 4], np.uint32), np.zeros(7, np.uint16), label, nothing, nothing)
    data = np.frombuffer(b"".join(encode(cache_key, arrays)), np.uint8)
    assert len(data) == shard_bytes(cache_key, 2, 7, 0)
    entry = ShardEntry(name="s", first=0, examples=2, tokens=7, entries=0, tail_mass=0.0, bytes=len(data), sha256="")
    back = decode(cache_key, entry, data)
    np.testing.assert_array_equal(back.scalars, label)
    assert back.lengths.tolist() == [3, 4] and not back.counts.any() and not len(back.logprobs)
    assert cache_key.max_bytes_per_token == width
    assert shard_bytes(cache_key, 1000, 100_000, 0) / 100_000 <= width + 0.05


@pytest.mark.parametrize(("vocab", "bits"), [(2, 1), (256, 8), (257, 9), (49152, 16), (131072, 17), (151936, 18)])
def test_ids_get_the_bits_that_the_vocabulary_needs(vocab: int, bits: int) -> None:
    assert key(demonstrations(), vocab=vocab).bits == bits


def test_every_field_of_the_key_changes_its_id() -> None:
    base = key(demonstrations())
    changes = {
        "model": "other",
        "tokenizer": "other",
        "data": "other",
        "template": "other",
        "max_length": 33,
        "vocab": 91,
        "k": 17,
        "tail_mass": 0.1,
        "min_prob": 0.1,
        "dtype": "float16",
        "precision": "bf16",
        "content": "label",
    }
    assert set(changes) == set(type(base).model_fields)
    for name, value in changes.items():
        other = base.model_copy(update={name: value})
        assert other.id != base.id
        assert base.differences(other) == [name]
    assert key(demonstrations()).id == base.id


@pytest.mark.parametrize("change", [{"k": 0}, {"k": 70000}, {"tail_mass": 1.0}, {"vocab": 1}, {"dtype": "int8"}])
def test_a_key_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        key(demonstrations(), **change)
