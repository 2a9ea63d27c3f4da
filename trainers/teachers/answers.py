"""What a frozen model said, kept for whoever asks the same again.

Trials of a study see the same demonstrations in the same order, so a teacher or reference that each of them asks along
the way is asked the same, and so is the base, by whoever measures what they forgot: the first trial asks, the others
look up. Of equal batches alone, never of their parts: in another batch the same sequence is rounded otherwise, and a
trial would depend on those before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

MOST_BYTES, SHARE = 2**31, 32
"""At most so much is kept of one model, and at most one part in so many of the host's memory."""


class Answers:
    """Tensors by what was asked, in host memory; of one frozen model about one data set.

    What no longer fits is asked each time: the batches of a training come again in the same order, so that dropping the
    oldest would drop each just before it is wanted.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._left = host_share() if most_bytes is None else most_bytes
        self._kept: dict[Hashable, tuple[Tensor, torch.device]] = {}

    def of(self, question: Hashable, ask: Callable[[], Tensor]) -> Tensor:
        """What `ask` gives, where it gives it; nobody may write into it."""
        if question in self._kept:
            kept, device = self._kept[question]
            return kept.to(device, non_blocking=True)
        asked = ask()
        if asked.nbytes <= self._left:
            self._left -= asked.nbytes
            self._kept[question] = asked.cpu(), asked.device
        return asked


def host_share() -> int:
    """Bytes that may be kept of one model on this host."""
    return min(MOST_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
