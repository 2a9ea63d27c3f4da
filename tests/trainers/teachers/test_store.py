"""Caches as a whole: list, verify, prune."""

import os
import time
from pathlib import Path

import pytest
from cache_world import demonstrations, key, teacher

from qtarget.trainers.teachers.build import build
from qtarget.trainers.teachers.format import CacheError
from qtarget.trainers.teachers.store import build_lock, default_root, list_caches, prune, verify


def cache(root: Path, k: int) -> Path:
    data = demonstrations()
    return build(teacher(), data, key(data, k=k), root, pad_token_id=0)


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QTARGET_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("QTARGET_CACHE")
    assert default_root() == Path.home() / ".cache" / "qtarget"


def test_list_tells_whole_from_unfinished_caches(tmp_path: Path) -> None:
    assert list_caches(tmp_path / "nowhere") == []
    whole, unfinished = cache(tmp_path, 4), cache(tmp_path, 8)
    (unfinished / "manifest.json").unlink()
    (tmp_path / "something else").mkdir()
    infos = {info.folder: info for info in list_caches(tmp_path)}
    assert set(infos) == {whole, unfinished}
    assert infos[whole].problem is None and infos[whole].manifest is not None
    assert infos[whole].manifest.key.k == 4
    assert infos[whole].bytes >= infos[whole].manifest.bytes
    assert "not finished" in str(infos[unfinished].problem)


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    folder = cache(tmp_path, 4)
    assert verify(folder).tokens == demonstrations().num_labels
    shard = folder / "shard-00000.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    verify(folder, checksums=False)
    with pytest.raises(CacheError, match=r"shard-00000.bin must have SHA-256 .* but has"):
        verify(folder)


@pytest.mark.slow
def test_prune_keeps_what_is_named_recent_or_being_built(tmp_path: Path) -> None:
    named, recent, building, old = (cache(tmp_path, k) for k in (2, 3, 4, 5))
    (tmp_path / "notes").mkdir()
    week_ago = time.time() - 7 * 86400
    for folder in (named, building, old):
        for path in folder.iterdir():
            os.utime(path, (week_ago, week_ago))
    with build_lock(building):
        removed = prune(tmp_path, keep=[named.name], unused_days=3)
    assert [info.folder for info in removed] == [old]
    assert {info.folder for info in list_caches(tmp_path)} == {named, recent, building}
    assert {info.folder for info in prune(tmp_path)} == {named, recent, building}
    assert list_caches(tmp_path) == []
    assert (tmp_path / "notes").is_dir(), "what is no cache stays"
