"""One rank of an engine of several: rank 0 decides and tells the others, which compute along.

Started once a rank as `python -m qtarget.search.engine.ranks STUDY_FOLDER`, by launcher_ranks.py. Commands, decisions
and scores come from rank 0 alone, so all ranks are always at the same step.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # imports leave next to no garbage; looking for it is a fifth of their time

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState

from ..study.failures import LOST_CONTACT
from .channel import Channel, Message, die_with_parent
from .inputs import Engine
from .main import classify, serve
from .ranks_run import FollowerRun, LeaderRun, Talk
from .run import Run

FOREVER = timedelta(days=365)
"""Ranks wait for each other through long evaluations and idle nights; the launcher sees a dead one, not a timeout."""


def join_ranks() -> Talk:
    """Meet the other ranks, each on its device, and return the way to talk with them.

    They meet at a file, and gloo listens on the loopback device alone: nothing can be reached from outside.
    """
    rank, ranks, cuda = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.cuda.is_available()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // ranks)))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if cuda else "gloo",
        init_method=f"file://{os.environ['QTARGET_MEETING']}",
        rank=rank,
        world_size=ranks,
        timeout=FOREVER,
    )
    PartialState(cpu=not cuda)
    return Talk(dist.new_group(backend="gloo", timeout=FOREVER))


class LeaderChannel(Channel):
    """The channel of rank 0: what it hears, all hear."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self._talk = talk

    def next_command(self) -> Message:
        command: Message = self._talk.tell(super().next_command())
        return command

    def decision(self, number: int, step: int) -> Message:
        decision: Message = self._talk.tell(super().decision(number, step))
        return decision


class FollowerChannel(Channel):
    """The channel of any other rank: hears rank 0, and tells of nothing but its own failure, or a signal."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self._talk = talk

    def send(self, kind: str, **fields: Any) -> None:
        if kind in ("failed", "signalled"):
            super().send(kind, **fields)

    def next_command(self) -> Message:
        command: Message = self._talk.hear()
        return command

    def decision(self, number: int, step: int) -> Message:
        decision: Message = self._talk.hear()
        return decision


def lost_contact(error: Exception) -> bool:
    """Whether an exception only says that another rank is gone, whose own end tells what happened."""
    if isinstance(error, dist.DistError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in said or "NCCL" in said or "Connection closed" in said)


def main(folder: Path) -> None:
    die_with_parent()
    talk = join_ranks()
    leads = talk.rank == 0
    channel = LeaderChannel(talk) if leads else FollowerChannel(talk)
    channel.heed_signals()
    make_run: Callable[[Engine, Channel, Message], Run] = (
        partial(LeaderRun, talk) if leads else partial(FollowerRun, talk)
    )
    try:
        serve(folder, channel, make_run)
    except Exception as error:
        if lost_contact(error):
            os._exit(LOST_CONTACT)
        channel.send("failed", failure=classify(error).model_dump())
        os._exit(1)  # ordinary leave-taking would wait for ranks that wait for this one


if __name__ == "__main__":
    gc.freeze()  # what was imported stays, and need not be looked at again
    gc.enable()
    main(Path(sys.argv[1]))
