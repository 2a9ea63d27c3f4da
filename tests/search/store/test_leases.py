"""A lease is lost when its holder is dead here, or silent elsewhere."""

import subprocess
import sys

import psutil
import pytest

from qtarget.search.store.leases import new_lease, read_lease, this_host


def test_the_own_lease_holds_however_late() -> None:
    lease = new_lease(seconds=0.001)
    assert not lease.lost(now=lease.expires + 1e6), "a living process of this host keeps its trials"


def test_a_dead_or_reused_pid_of_this_host_loses_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    lease = new_lease(60).model_copy(update={"pid": process.pid, "started": started})
    assert not lease.lost()
    assert lease.model_copy(update={"started": started - 100}).lost(), "another process has that pid"
    process.communicate()
    assert lease.lost()


@pytest.mark.parametrize(("seconds_past", "lost"), [(-1.0, False), (1.0, True)])
def test_a_lease_of_another_host_ends_with_its_expiry(seconds_past: float, lost: bool) -> None:
    lease = new_lease(60).model_copy(update={"host": "elsewhere", "pid": 1})
    assert lease.lost(now=lease.expires + seconds_past) is lost


def test_a_renewal_keeps_the_token_and_moves_the_expiry() -> None:
    lease = new_lease(1)
    renewed = lease.renewed(100)
    assert renewed.token == lease.token and renewed.expires > lease.expires + 90
    assert new_lease(1).token != lease.token


def test_a_lease_survives_the_storage() -> None:
    lease = new_lease(60)
    assert read_lease({"lease": lease.model_dump(mode="json")}) == lease
    assert read_lease({}) is None and read_lease({"lease": None}) is None
    assert this_host() == this_host()
