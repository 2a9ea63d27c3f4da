"""A lease is lost when its holder is dead here, or silent elsewhere by the watcher's own clock."""

import subprocess
import sys
import time

import psutil
import pytest

from qtarget.search.store import leases
from qtarget.search.store.leases import Lease, Watch, new_lease, read_lease, this_host

ELSEWHERE = {"host": "elsewhere", "pid": 1}


def is_lost(lease: Lease) -> bool:
    return lease.token in Watch().lost([lease])


def elsewhere(seconds: float = 60.0) -> Lease:
    return new_lease(seconds).model_copy(update=ELSEWHERE)


def test_the_own_lease_holds_however_late() -> None:
    lease, watch = new_lease(seconds=0.001), Watch()
    assert not any(watch.lost([lease], now=1e6 * look) for look in range(5)), "a living process keeps its trials"


def test_a_dead_or_reused_pid_of_this_host_loses_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = leases._started(process.pid)
    lease = new_lease(60).model_copy(update={"pid": process.pid, "started": started})
    as_once_written = lease.model_copy(update={"started": psutil.Process(process.pid).create_time()})
    assert not is_lost(lease) and not is_lost(as_once_written)
    assert is_lost(lease.model_copy(update={"started": started - 100})), "another process has that pid"
    process.communicate()
    assert is_lost(lease) and is_lost(as_once_written)


def test_a_start_time_does_not_move_with_the_time_of_day() -> None:
    """Unlike psutil's, which is the time of boot, as it is known now, plus what we use."""
    with open("/proc/uptime", encoding="utf-8") as file:
        uptime = float(file.read().split()[0])
    assert 0 < leases._started(psutil.Process().pid) < uptime


def test_whose_clock_is_wrong_takes_nothing() -> None:
    """Whatever time of day stands in a lease, only renewals count, and only what was seen of them."""
    watch, lease = Watch(), elsewhere(60).model_copy(update={"expires": time.time() - 300})
    for now in range(0, 600, 15):
        lease = lease.renewed()
        assert watch.lost([lease], now) == set()


def test_who_is_silent_elsewhere_loses_after_the_time_it_promised() -> None:
    watch, silent, alive = Watch(), elsewhere(60), elsewhere(60)
    found = {}
    for now in range(1000, 1200, 15):
        alive = alive.renewed()
        found[now] = watch.lost([silent, alive], now)
    assert not any(found[now] for now in found if now <= 1060)
    assert all(found[now] == {silent.token} for now in found if now > 1060)


def test_a_renewal_begins_the_silence_anew() -> None:
    watch, lease = Watch(), elsewhere(60)
    assert [bool(watch.lost([lease], now)) for now in (0, 30, 60)] == [False, False, False]
    assert [bool(watch.lost([lease.renewed()], now)) for now in (70, 100, 130, 131)] == [False, False, False, True]


def test_time_in_which_nobody_could_look_is_not_held_against_the_holder() -> None:
    """The database was away for an hour, for both."""
    watch, lease = Watch(), elsewhere(60)
    assert not watch.lost([lease], 0) and not watch.lost([lease], 15) and not watch.lost([lease], 3600)
    assert not watch.lost([lease.renewed()], 3615)


@pytest.mark.parametrize("changes", [{}, {"expires": 1e9}])
def test_a_renewal_keeps_the_token_and_shows(changes: dict[str, float]) -> None:
    lease = new_lease(1).model_copy(update=changes)
    assert lease.renewed().token == lease.token and lease.renewed().beat != lease.beat
    assert new_lease(1).token != lease.token


def test_a_lease_survives_the_storage_also_as_it_was_once_written() -> None:
    lease = new_lease(60)
    assert read_lease({"lease": lease.model_dump(mode="json")}) == lease
    assert read_lease({}) is None and read_lease({"lease": None}) is None
    assert this_host() == this_host()
    once = {"token": "t", "host": "h", "pid": 1, "started": 1.7e9, "expires": 1.7e9}
    assert read_lease({"lease": once}) is not None
