"""Building and opening caches: what is read is what the teacher said, whatever happened in between."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cache_world import VOCAB, demonstrations, dense_logprobs, key, teacher

from qtarget.trainers.data.batches import collate
from qtarget.trainers.loss import LabelOnly
from qtarget.trainers.teachers.build import Ranks, build, plan_shards, require_space
from qtarget.trainers.teachers.cache import TeacherCache
from qtarget.trainers.teachers.format import CacheError, CacheKey
from qtarget.trainers.teachers.sources import CachedModel
from qtarget.trainers.teachers.store import cache_folder, read_manifest

pytestmark = pytest.mark.slow

REBUILD = "qtarget cache build STUDY.yaml"


def built(root: Path, *, shard_tokens: int = 30, **changes: object) -> tuple[Path, CacheKey]:
    data = demonstrations()
    cache_key = key(data, **changes)
    return build(teacher(), data, cache_key, root, pad_token_id=0, shard_tokens=shard_tokens), cache_key


def dense_rows(cache: TeacherCache, examples: list[int]) -> torch.Tensor:
    """Probabilities (T, VOCAB) of the kept entries, zero elsewhere."""
    rows = cache.rows(examples)
    dense = torch.zeros(rows.num_tokens, VOCAB + 1)
    return dense.scatter(1, rows.ids.where(rows.ids >= 0, VOCAB), rows.logprobs.exp())[:, :VOCAB]


def test_full_rows_are_the_teachers_distribution(tmp_path: Path) -> None:
    folder, cache_key = built(tmp_path, k=VOCAB)
    cache, data = TeacherCache.open(folder, cache_key), demonstrations()
    assert len(cache.manifest.shards) > 2
    order = [7, 0, 11, 3, 3]
    expected = torch.cat([dense_logprobs(teacher(), data, index) for index in order])
    rows = cache.rows(order)
    torch.testing.assert_close(dense_rows(cache, order), expected.exp().float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rows.entropy, -(expected.exp() * expected).sum(-1).float(), atol=1e-5, rtol=1e-5)
    labels = torch.cat([data[index].labels[data[index].labels >= 0] for index in order])
    torch.testing.assert_close(
        rows.label_logprob, expected.gather(1, labels[:, None])[:, 0].float(), atol=1e-5, rtol=1e-5
    )
    assert rows.tail_mass is not None and rows.tail_mass.max() == 0


def test_a_pass_that_finds_no_memory_is_made_in_halves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cache is the one that a larger memory would have given; one demonstration alone has nothing to halve."""
    expected = built(tmp_path / "roomy", k=VOCAB)
    model, data = teacher(), demonstrations()
    most = 2

    def refuse(module: torch.nn.Module, given: tuple[object, ...], named: dict[str, torch.Tensor]) -> None:
        if len(named["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    folder = build(model, data, expected[1], tmp_path / "narrow", pad_token_id=0, shard_tokens=30)
    caches = [TeacherCache.open(each, expected[1]) for each in (expected[0], folder)]
    order = list(range(len(data)))
    torch.testing.assert_close(*(dense_rows(cache, order) for cache in caches), atol=1e-6, rtol=1e-5)
    assert "out of memory while building" in caplog.text
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        build(model, data, expected[1], tmp_path / "none", pad_token_id=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 4e-3), ("float32", 1e-6)])
def test_labels_alone_are_the_teachers_on_labels(tmp_path: Path, dtype: str, tolerance: float) -> None:
    folder, cache_key = built(tmp_path, dtype=dtype, content="label")
    cache, data = TeacherCache.open(folder, cache_key), demonstrations()
    assert len(cache.manifest.shards) > 2 and not cache.has_rows
    order = [7, 0, 11, 3, 3]
    rows = cache.rows(order)
    assert isinstance(rows, LabelOnly)
    labels = torch.cat([data[index].labels[data[index].labels >= 0] for index in order])
    expected = torch.cat([dense_logprobs(teacher(), data, index) for index in order])
    expected = expected.gather(1, labels[:, None])[:, 0].float()
    torch.testing.assert_close(rows.logprobs, expected, atol=1e-6, rtol=tolerance)
    batch = collate([data[index] for index in (5, 2)], [5, 2], 0)
    torch.testing.assert_close(CachedModel(cache).rows(batch).logprobs, cache.rows([5, 2]).logprobs)
    width = 2 if dtype == "float16" else 4
    assert sum(shard.bytes for shard in cache.manifest.shards) <= width * data.num_labels + 12 * len(data) + 8


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("tail_mass", [0.0, 0.2])
def test_rows_and_tail_sum_to_one(tmp_path: Path, dtype: str, tail_mass: float) -> None:
    folder, cache_key = built(tmp_path, dtype=dtype, tail_mass=tail_mass)
    rows = TeacherCache.open(folder, cache_key).rows(range(12))
    assert rows.tail_mass is not None
    torch.testing.assert_close(rows.logprobs.exp().sum(-1) + rows.tail_mass, torch.ones(rows.num_tokens))
    used = rows.ids >= 0
    assert torch.equal(used, rows.logprobs.isfinite())
    assert all(len(set(row[mask].tolist())) == mask.sum() for row, mask in zip(rows.ids, used, strict=True))
    tolerance = 0.01 if dtype == "float16" else 1e-5
    expected = torch.cat([dense_logprobs(teacher(), demonstrations(), index) for index in range(12)]).float()
    found = rows.logprobs[used]
    torch.testing.assert_close(found, expected.gather(1, rows.ids.clamp(min=0))[used], atol=tolerance, rtol=0)


def test_an_adaptive_cache_is_smaller_and_keeps_its_promise(tmp_path: Path) -> None:
    fixed = read_manifest(built(tmp_path, k=64, dtype="float16")[0])
    folder, cache_key = built(tmp_path, k=64, dtype="float16", tail_mass=0.2, min_prob=0.001)
    adaptive = read_manifest(folder)
    assert adaptive.bytes_per_token < fixed.bytes_per_token
    assert fixed.entries_per_token == 64 > adaptive.entries_per_token
    tails = TeacherCache.open(folder, cache_key).rows(range(12)).tail_mass
    assert tails is not None and tails.max() <= 0.2 + 1e-3
    logprobs = TeacherCache.open(folder, cache_key).rows(range(12)).logprobs
    assert logprobs[logprobs.isfinite()].exp().min() > 0.00099
    assert tails.mean().item() == pytest.approx(adaptive.mean_tail_mass, abs=1e-3)


def test_rows_follow_the_batch(tmp_path: Path) -> None:
    folder, cache_key = built(tmp_path)
    cache, data, order = TeacherCache.open(folder, cache_key), demonstrations(), [4, 9, 1]
    batch = collate([data[index] for index in order], order, pad_token_id=0)
    rows = CachedModel(cache).rows(batch)
    assert rows.num_tokens == len(batch.flat_labels)
    kept = (rows.ids == batch.flat_labels[:, None]) & (rows.ids >= 0)
    torch.testing.assert_close(rows.logprobs[kept], rows.label_logprob[kept.any(-1)])
    assert kept.any()


def test_batches_and_shards_do_not_change_the_rows(tmp_path: Path) -> None:
    data, cache_key = demonstrations(), key(demonstrations())
    one = build(teacher(), data, cache_key, tmp_path / "a", pad_token_id=0, batch_tokens=1)
    many = build(teacher(), data, cache_key, tmp_path / "b", pad_token_id=0, shard_tokens=20)
    left, right = (TeacherCache.open(folder, cache_key) for folder in (one, many))
    assert (len(left.manifest.shards), len(right.manifest.shards)) == (1, len(plan_shards(data, 20)))
    torch.testing.assert_close(dense_rows(left, [2, 10]), dense_rows(right, [2, 10]))


@pytest.mark.parametrize("examples", [[], [12], [-1]])
def test_unknown_examples_are_refused(tmp_path: Path, examples: list[int]) -> None:
    folder, cache_key = built(tmp_path)
    with pytest.raises(CacheError, match="`examples` must"):
        TeacherCache.open(folder, cache_key).rows(examples)


def test_other_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="must be for these demonstrations"):
        build(teacher(), demonstrations(seed=1), key(demonstrations()), tmp_path, pad_token_id=0)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_cache_names_the_nearest_and_the_command(tmp_path: Path) -> None:
    built(tmp_path)
    other = key(demonstrations(), model="another", k=8)
    with pytest.raises(CacheError, match=f"differs in model, k; build it with `{REBUILD}`"):
        TeacherCache.open(cache_folder(tmp_path, other), other)


def test_a_stale_cache_is_refused_with_the_field_that_differs(tmp_path: Path) -> None:
    folder, _ = built(tmp_path)
    with pytest.raises(CacheError, match=rf"stale: it differs in data .*{REBUILD}"):
        TeacherCache.open(folder, key(demonstrations(seed=1)))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_torn_shard_is_refused_and_only_it_is_written_again(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    folder, cache_key = built(tmp_path)
    whole = {path.name: path.read_bytes() for path in folder.glob("*.bin")}
    damage(folder / "shard-00001.bin")
    with pytest.raises(CacheError, match=rf"torn: shard-00001.bin .*{REBUILD}"):
        TeacherCache.open(folder, cache_key)
    untouched = {path: path.stat().st_mtime_ns for path in folder.glob("*.bin") if path.name != "shard-00001.bin"}
    assert built(tmp_path) == (folder, cache_key)
    assert {path.name: path.read_bytes() for path in folder.glob("*.bin")} == whole
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    folder, cache_key = built(tmp_path)
    truncate(folder / "manifest.json")
    with pytest.raises(CacheError, match=REBUILD):
        TeacherCache.open(folder, cache_key)


KILLED = """
import os, signal, sys
from pathlib import Path
from cache_world import demonstrations, key, teacher
from qtarget.trainers.loss import LabelOnly
from qtarget.trainers.teachers.build import build
def die(done, total):
    if done > total / 3:
        os.kill(os.getpid(), signal.SIGKILL)
build(teacher(), demonstrations(), key(demonstrations()), Path(sys.argv[1]), pad_token_id=0, shard_tokens=30,
      on_progress=die)
"""


def test_a_killed_build_continues_at_the_last_whole_shard(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    cache_key = key(demonstrations())
    folder = cache_folder(tmp_path, cache_key)
    with pytest.raises(CacheError, match="is not finished"):
        TeacherCache.open(folder, cache_key)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.bin")}
    assert 0 < len(before) < len(plan_shards(demonstrations(), 30))
    progress: list[tuple[int, int]] = []
    build(
        teacher(), demonstrations(), cache_key, tmp_path, pad_token_id=0, shard_tokens=30,
        on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert len(progress) == len(plan_shards(demonstrations(), 30)) - len(before)
    assert progress[-1] == (demonstrations().num_labels,) * 2
    fresh, _ = built(tmp_path / "fresh")
    for path in fresh.glob("*.bin"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


RANK = """
import sys, torch
from pathlib import Path
from cache_world import demonstrations, key, teacher
from qtarget.trainers.loss import LabelOnly
from qtarget.trainers.teachers.build import build
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
build(teacher(), demonstrations(), key(demonstrations()), folder / "root", pad_token_id=0, shard_tokens=30)
torch.distributed.destroy_process_group()
"""


def test_two_ranks_write_the_same_cache_as_one(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], env=environment) for rank in (0, 1)
    ]
    assert [process.wait(timeout=250) for process in ranks] == [0, 0]
    cache_key = key(demonstrations())
    alone, _ = built(tmp_path / "alone")
    together = cache_folder(tmp_path / "root", cache_key)
    assert read_manifest(together) == read_manifest(alone)


def test_a_rank_that_wrote_nothing_is_noticed(tmp_path: Path) -> None:
    class Lonely(Ranks):
        def wait(self) -> None:
            """As if the other rank had come and gone."""

    data = demonstrations()
    with pytest.raises(CacheError, match=r"lacks the shards shard-00001.bin"):
        build(teacher(), data, key(data), tmp_path, pad_token_id=0, shard_tokens=30, ranks=Lonely(0, 2))
    with pytest.raises(CacheError, match="is not finished"):
        read_manifest(cache_folder(tmp_path, key(data)))


def test_a_full_disk_leaves_no_usable_cache_and_says_what_is_needed(tmp_path: Path) -> None:
    data, cache_key = demonstrations(), key(demonstrations())
    folder = cache_folder(tmp_path, cache_key)
    folder.mkdir()
    (folder / "shard-00001.part").symlink_to("/dev/full")  # every write there fails with ENOSPC
    with pytest.raises(CacheError, match=r"needs \d+ MiB more in .* the disk is full") as caught:
        build(teacher(), data, cache_key, tmp_path, pad_token_id=0, shard_tokens=30)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    with pytest.raises(CacheError, match="is not finished"):
        TeacherCache.open(folder, cache_key)
    build(teacher(), data, cache_key, tmp_path, pad_token_id=0, shard_tokens=30)  # space again
    assert len(TeacherCache.open(folder, cache_key)) == len(data)


def test_free_space_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"needs 953674380 MiB more .* only \d+ MiB are free"):
        require_space(tmp_path, 10**15)


def test_a_teacher_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken, data = teacher(), demonstrations()
    torch.nn.init.constant_(broken.head.weight[5], torch.nan)
    with pytest.raises(CacheError, match=r"logits must be finite, but on demonstrations \["):
        build(broken, data, key(data), tmp_path, pad_token_id=0)


def test_a_teacher_with_too_few_logits_is_refused(tmp_path: Path) -> None:
    data = demonstrations()
    with pytest.raises(CacheError, match=r"each of the tokenizer's 200 entries, but has 96"):
        build(teacher(), data, key(data, vocab=200), tmp_path, pad_token_id=0)


def test_the_teacher_keeps_its_mode(tmp_path: Path) -> None:
    model, data = teacher(), demonstrations()
    model.model.train()
    build(model, data, key(data), tmp_path, pad_token_id=0)
    assert model.model.training
