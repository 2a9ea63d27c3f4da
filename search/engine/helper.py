"""One way for a verb to compute: a process of its own answers one request and leaves.

Started as `python -m qtarget.search.engine.helper VERB REQUEST.json`, or once a rank by torchrun or accelerate. The
verb's `answer` gets the request and a channel for progress; what it returns is the last message. Rank 0 speaks JSON
lines and leaves when its standard input ends; other ranks compute along in silence.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # imports leave next to no garbage; looking for it is a fifth of their time

import json
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..study.failures import LOST_CONTACT
from .channel import Channel, die_with_parent, on_stop_signal
from .main import classify
from .ranks import lost_contact

ELSEWHERE = {"init": "...evaluation.survey.look"}
"""Verbs that need nothing of a study, and are answered on the floor below."""
RESUMED = ("train",)
"""Verbs that stop where they can be gone on with; a signal ends the others at once."""


class Silent:
    """The channel of every rank but the first."""

    stop = threading.Event()

    def send(self, kind: str, **fields: Any) -> None:
        """Say nothing."""

    def heed_signals(self) -> None:
        """Stop with all other ranks when told so by a signal."""
        on_stop_signal(lambda name: self.stop.set())


def main(verb: str, request: Path) -> None:
    """Answer one request. Every failure is reported before the process leaves."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us through the parent
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    channel = Silent() if several and os.environ.get("RANK", "0") != "0" else Channel()
    if verb in RESUMED:
        channel.heed_signals()
    try:
        answer = import_module(ELSEWHERE.get(verb, f".{verb}"), __package__).answer
        channel.send("done", **answer(json.loads(request.read_text("utf-8")), channel))
    except Exception as error:
        if several and lost_contact(error):
            os._exit(LOST_CONTACT)  # the launcher tells how the other one ended
        channel.send("failed", failure=classify(error).model_dump())
        if several:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)  # ordinary leave-taking would wait for ranks that wait for this one
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    gc.freeze()  # what was imported stays, and need not be looked at again
    gc.enable()
    main(sys.argv[1], Path(sys.argv[2]))
