"""The process that computes: loads model, data and problems once, then trains and scores one trial after another.

Started as `python -m qtarget.search.engine.main STUDY_FOLDER`. It knows neither Optuna nor MLflow.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # imports leave next to no garbage; looking for it is a fifth of their time

import errno
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ...spaces.errors import UserError
from ...trainers.loop.sft import DivergedError
from ...trainers.models.memory import out_of_memory
from ..study.config_file import read_folder
from ..study.failures import Failure
from .channel import Channel, Message, die_with_parent
from .inputs import Engine
from .run import Run

log = logging.getLogger(__name__)


def main(folder: Path) -> None:
    """Serve one supervisor until its pipe ends; every failure is reported before the process leaves."""
    die_with_parent()
    channel = Channel()
    channel.heed_signals()
    try:
        serve(folder, channel)
    except Exception as error:
        channel.send("failed", failure=classify(error).model_dump())
        sys.exit(1)


def serve(folder: Path, channel: Channel, make_run: Callable[[Engine, Channel, Message], Run] = Run) -> None:
    """Load what the study needs, then run one trial after another until a signal or the channel's end."""
    engine = Engine(read_folder(folder))
    engine.cache_bias()
    warnings = engine.warnings()
    for line in warnings:
        log.warning("look at: %s", line)
    found = {"fingerprints": engine.fingerprints(), "inputs": engine.describe(), "warnings": warnings}
    channel.send("ready", checkpoint_bytes=engine.checkpoint_bytes, **found)
    while (command := channel.next_command())["type"] != "leave":
        if command["type"] == "run":
            channel.begin()
            make_run(engine, channel, command).finish()


def classify(error: BaseException) -> Failure:
    """What kind of failure an exception is."""
    trace = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, UserError):
        return Failure(kind="user", message=str(error), field=error.field)
    if isinstance(error, DivergedError):
        return Failure(kind="diverged", message=str(error))
    if out_of_memory(error):
        return Failure(kind="oom", message=message, traceback=trace)
    if "No space left on device" in str(error) or getattr(error, "errno", None) == errno.EDQUOT:
        return Failure(kind="disk", message=message, traceback=trace)
    if "CUDA error" in str(error):  # the context is lost, the next engine has a new one
        return Failure(kind="crash", message=message, traceback=trace)
    return Failure(kind="bug", message=message, traceback=trace)


if __name__ == "__main__":
    gc.freeze()  # what was imported stays, and need not be looked at again
    gc.enable()
    main(Path(sys.argv[1]))
