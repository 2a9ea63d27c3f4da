"""A trial on several ranks: all train; answers are shared out; rank 0 alone judges, decides and writes files."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ...evaluation.generation.backends import Backend, TransformersBackend
from ...evaluation.generation.completions import Completion, Request, Sampling
from ...evaluation.problems.load import Problem
from ...evaluation.scoring.evaluate import Evaluation, Race
from ...trainers.loop.sft import StepReport
from .channel import Channel, Message
from .inputs import Engine
from .run import Run


class Talk:
    """What ranks say to each other beside tensors: rank 0 tells, the others hear."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()

    def tell(self, message: Any) -> Any:
        """Tell all; returns the message."""
        dist.broadcast_object_list([message], src=0, group=self._group, device=torch.device("cpu"))
        return message

    def hear(self) -> Any:
        """What rank 0 tells, waiting for it."""
        heard: list[Any] = [None]
        dist.broadcast_object_list(heard, src=0, group=self._group, device=torch.device("cpu"))
        return heard[0]

    def gather(self, part: list[Any]) -> list[Any]:
        """The parts of all ranks in a row on rank 0; nothing elsewhere."""
        parts: list[Any] | None = [None] * self.ranks if self.rank == 0 else None
        dist.gather_object(part, parts, dst=0, group=self._group)
        return [each for found in parts or () for each in found]


@dataclass(frozen=True)
class _Requests:
    """What rank 0 asks all ranks to answer together."""

    requests: list[Request]
    sampling: Sampling


class SharedBackend:
    """Rank 0's backend: every rank answers its share of the requests."""

    def __init__(self, talk: Talk, mine: Backend) -> None:
        self._talk, self._mine = talk, mine

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
        """As many at a time as all ranks decode together; they meet again before the next."""
        size = self._talk.ranks * sampling.batch_size
        for first in range(0, len(requests), size):
            part = list(requests[first : first + size])
            self._talk.tell(_Requests(part, sampling))
            yield from self.answer(part, sampling)

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answers to this rank's share, gathered on rank 0. Samples of one prompt stay together."""
        groups = {prompt: number for number, prompt in enumerate(dict.fromkeys(r.prompt for r in requests))}
        share = [request for request in requests if groups[request.prompt] % self._talk.ranks == self._talk.rank]
        return self._talk.gather(list(self._mine.generate(share, sampling)))


class LeaderRun(Run):
    """The trial on rank 0."""

    def __init__(self, talk: Talk, engine: Engine, channel: Channel, command: Message) -> None:
        self._talk = talk
        super().__init__(engine, channel, command)

    def _prepare(self) -> bool:
        with self._engine.resident.gathered():
            return bool(self._talk.tell(super()._prepare()))

    def _backend(self) -> Backend:
        mine = super()._backend()
        return SharedBackend(self._talk, mine) if isinstance(mine, TransformersBackend) else mine

    def _evaluate(
        self, problems: Sequence[Problem], step: int, items: Path, race: Race | None = None
    ) -> Evaluation | None:
        with self._engine.resident.gathered():
            found: Evaluation | None = self._talk.tell(super()._evaluate(problems, step, items, race))
        return found

    def _retention(self, step: int) -> tuple[bool, Message | None]:
        with self._engine.resident.gathered():
            found: tuple[bool, Message | None] = self._talk.tell(super()._retention(step))
        return found


class FollowerRun(Run):
    """The trial on any other rank."""

    def __init__(self, talk: Talk, engine: Engine, channel: Channel, command: Message) -> None:
        self._talk = talk
        super().__init__(engine, channel, command)

    def _prepare(self) -> bool:
        return bool(self._follow())

    def _record(self, report: StepReport) -> None:
        pass

    def _evaluate(
        self, problems: Sequence[Problem], step: int, items: Path, race: Race | None = None
    ) -> Evaluation | None:
        found: Evaluation | None = self._follow()
        return found

    def _retention(self, step: int) -> tuple[bool, Message | None]:
        found: tuple[bool, Message | None] = self._follow()
        return found

    def _conclude(self, *_: Any, **__: Any) -> None:
        pass

    def _follow(self) -> Any:
        """Answer shares of requests until rank 0 tells what came out."""
        backend = SharedBackend(self._talk, TransformersBackend(self._model, self._engine.tokenizer))
        with self._engine.resident.gathered():
            while isinstance(heard := self._talk.hear(), _Requests):
                backend.answer(heard.requests, heard.sampling)
        return heard
