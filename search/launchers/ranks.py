"""An engine of several processes of this host, its ranks, that train one model together.

Rank 0 hears the supervisor and answers; the others follow it (engine_ranks.py) and speak of their own failures only.
The death of one is the death of the engine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..study.failures import LOST_CONTACT
from .process import Cause, EngineProcess, Message


class EngineRanks:
    """A group of ranks as its supervisor sees it: one engine."""

    def __init__(
        self,
        study_folder: Path,
        index: int,
        ranks: int,
        environment: Mapping[str, str] | None = None,
        module: str = "qtarget.search.engine.ranks",
    ) -> None:
        self._meeting = Path(tempfile.mkdtemp(prefix="qtarget-ranks-"))
        self._failed = False
        self._ranks: list[EngineProcess] = []
        for rank in range(ranks):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            group = {name: str(value) for name, value in place.items()} | {"QTARGET_MEETING": f"{self._meeting}/ranks"}
            self._ranks.append(EngineProcess(study_folder, index, {**(environment or {}), **group}, module))

    @property
    def pids(self) -> list[int]:
        """Process ids by rank."""
        return [rank.pid for rank in self._ranks]

    def fileno(self) -> int:
        return self._ranks[0].fileno()

    def send(self, command: Message) -> None:
        self._ranks[0].send(command)

    def receive(self) -> Iterator[Message]:
        """What rank 0 says, and the first failure of any rank: a failure of all is one."""
        for message in [message for rank in self._ranks for message in rank.receive()]:
            if message["type"] == "failed":
                if self._failed:
                    continue
                self._failed = True
            yield message

    @property
    def dead(self) -> bool:
        return any(rank.dead for rank in self._ranks)

    def cause_of_death(self) -> Cause:
        """Of the rank that died first: one that only lost contact with it says so by its exit code."""
        dead = [(number, rank) for number, rank in enumerate(self._ranks) if rank.dead]
        number, rank = next(((n, r) for n, r in dead if r.exit_code != LOST_CONTACT), dead[0])
        kind, reason = rank.cause_of_death()
        return kind, f"rank {number}: {reason}"

    def close(self, patience: float = 10.0) -> None:
        for rank in self._ranks:
            rank.close(patience)
        shutil.rmtree(self._meeting, ignore_errors=True)

    def kill(self) -> None:
        for rank in self._ranks:
            rank.kill()

    def log_tail(self, lines: int = 20) -> str:
        return self._ranks[0].log_tail(lines)
