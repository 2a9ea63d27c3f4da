"""Deprecations: errors where the versions are locked, lines at the end where the newest or oldest ones run.

No example of hypothesis has a time limit of its own: a busy machine must not fail a test.
"""

from __future__ import annotations

import gc
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import made_once
import nursery
import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

OPTION = "--count-deprecations"
CATEGORIES = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@pytest.fixture(scope="session", autouse=True)
def processes() -> Iterator[None]:
    """What tests start is forked."""
    with nursery.installed():
        yield


@contextmanager
def begun_for_all() -> Iterator[None]:
    """One environment for whatever tests start, so that one nursery serves: one thread, no hub, a cache of its own."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="qtarget-tests-") as folder:
        take_signals_as_ever()
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", f"{folder}/datasets")
        patch.setenv(made_once.PLACE, f"{folder}/mlflow.db")
        yield


def take_signals_as_ever() -> None:
    """A shell's background job ignores Ctrl-C, one of `nohup` SIGHUP, and so would whatever the tests start."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def start_anew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a test with this mark are started as users start them."""
    if request.node.get_closest_marker("started_anew"):
        monkeypatch.setenv(nursery.ANEW, "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="deprecations are counted at the end instead of failing a test")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(OPTION):
        for category in CATEGORIES:
            config.addinivalue_line("filterwarnings", f"always::{category.__name__}")
        config.pluginmanager.register(Deprecations(), "count-deprecations")
    if not hasattr(config, "workerinput"):
        for_all = ExitStack()
        config.add_cleanup(for_all.close)
        for_all.enter_context(begun_for_all())
        if config.getoption("numprocesses", None):  # whose workers are forked, and imports made once for them all
            for_all.enter_context(nursery.installed())


def pytest_collection(session: pytest.Session) -> None:
    """Imports that were made before warn here, where they would have been made. The collector waits for their end."""
    for each in nursery.WARNED:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if not session.config.getoption("numprocesses", None):  # whoever has workers collects nothing
        gc.disable()


def pytest_collection_finish() -> None:
    """From here on it looks through what tests make, not through what was imported for them."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: what a worker is left with at the end is short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class Deprecations:
    """Counts them over all workers: who warns, of what, how often, and where first."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.first: dict[tuple[str, str], str] = {}

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        if issubclass(warning_message.category, CATEGORIES):
            text = " ".join(str(warning_message.message).split())
            key = package(warning_message.filename), f"{warning_message.category.__name__}: {text}"
            self.counts[key] += 1
            self.first.setdefault(key, nodeid or "an import")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"{len(self.counts)} deprecations")
        for (where, text), count in self.counts.most_common():
            terminalreporter.write_line(f"{count} x {where}: {text[:160]} (first: {self.first[where, text]})")


def package(filename: str) -> str:
    """The installed package that a file belongs to, or the file itself."""
    parts = Path(filename).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else filename
