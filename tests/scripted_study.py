"""Running studies with scripted engines, and hearing what happens in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtarget.search.launchers.process import EngineProcess, Launch

TESTS = Path(__file__).parent


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.closed = False

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def of(self, *kinds: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ in kinds]


def scripted(folder: Path, index: int) -> EngineProcess:
    """Start a scripted engine where a real one would be started."""
    return EngineProcess(folder, index, {"PYTHONPATH": str(TESTS)}, module="scripted_engine")


def scripted_engines(ranks: int) -> Launch:
    """How a node of a cluster starts its engines."""
    return scripted
