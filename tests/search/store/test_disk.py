"""How much room a study needs on its disk, and what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_study import small_config

from qtarget.search.store.disk import SPARE, WAITING, Disk, free_bytes, needed_bytes
from qtarget.search.study.config_file import parse_study
from qtarget.search.terminal.check import disk_facts, scarce

GIB = 2**30


@pytest.mark.parametrize(
    ("asked", "checkpoint", "engines", "needed"),
    [
        (None, 0, 1, SPARE),
        (None, 2 * GIB, 1, SPARE + 4 * GIB),
        (None, 2 * GIB, 3, SPARE + 8 * GIB),
        (0.5, 2 * GIB, 3, GIB // 2),
    ],
)
def test_each_engine_needs_a_checkpoint_and_one_is_replaced(asked, checkpoint, engines, needed) -> None:
    assert needed_bytes(asked, checkpoint, engines) == needed


def test_room_is_asked_of_the_file_system_of_a_folder_to_come(tmp_path: Path) -> None:
    found = free_bytes(tmp_path / "runs" / "study")
    assert found == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)


def test_room_follows_what_checkpoints_take(tmp_path: Path) -> None:
    disk = Disk(tmp_path, None)
    disk.expect(2**60, 1)
    assert not disk.has_room(-1e9)
    disk.expect(0, 1)
    assert disk.has_room(-1e9)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (100 * GIB, None),
        (2 * GIB, "2.1 GB are free for"),
        (2 * GIB, "a trial starts only with 5.4 GB"),
        (9 * GIB, "room for the checkpoints of 2 of 8 paused trials"),
    ],
)
def test_a_small_disk_is_said_before_the_night(free: int, said: str | None) -> None:
    facts = disk_facts(parse_study(small_config(search={"trials": 9})), 2 * GIB) | {"free_bytes": free}
    assert facts["paused"] == WAITING and facts["needed_bytes"] == 5 * GIB
    assert scarce(facts) is None if said is None else said in str(scarce(facts))
