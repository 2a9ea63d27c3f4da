"""Where engines run: on this host or over a cluster. With the other launcher files all that knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from .local import local_launch
from .process import Launch


class Cluster(Protocol):
    """Where engines can run beside this host."""

    def launch(self, ranks: int) -> Launch: ...

    def room(self, ranks: int) -> int:
        """How many engines of `ranks` devices each fit."""
        ...


_CLUSTER: ContextVar[Cluster | None] = ContextVar("cluster", default=None)


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Inside, engines run on the Ray cluster at an address; on this host where it is None. Raises UserError."""
    if address is None:
        yield
        return
    from .ray import RayCluster

    cluster = RayCluster(address)
    token = _CLUSTER.set(cluster)
    try:
        yield
    finally:
        _CLUSTER.reset(token)
        cluster.close()


def engines(ranks: int, workers: int) -> int:
    """How many engines of `ranks` processes run at once: `workers` here, at least as many as fit on a cluster.

    More than fit wait for nodes to come.
    """
    cluster = _CLUSTER.get()
    return workers if cluster is None else max(workers, cluster.room(ranks))


def place(ranks: int, workers: int) -> tuple[Launch, int]:
    """(how engines of `ranks` processes are started, how many of them)."""
    cluster = _CLUSTER.get()
    launch = local_launch(ranks) if cluster is None else cluster.launch(ranks)
    return launch, engines(ranks, workers)
