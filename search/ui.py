"""`qtarget ui`: optuna-dashboard and the MLflow UI of a study, on free ports of this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..spaces.errors import UserError
from .config import StudyConfig
from .report_data import locate
from .session import tracking_uri
from .signals import StopSignals
from .storage import open_storage
from .study import storage_url

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""MLflow imports for up to half a minute on a slow machine."""


@dataclass(frozen=True)
class Server:
    """A web server of this study."""

    name: str
    link: str
    """What to open, once it answers."""
    process: subprocess.Popen[bytes]
    log: Path

    def answers(self) -> bool:
        """Whether it serves pages; raises RuntimeError with its last words when it has died."""
        if self.process.poll() is not None:
            words = self.log.read_text("utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended with status {self.process.returncode}; it said:\n{words}")
        try:
            with urllib.request.urlopen(self.link.split("#")[0], timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def stop(self) -> None:
        """End it with its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def show_ui(path: Path, console: Console) -> None:
    """Start the servers of a study, print their links, and stop them on Ctrl-C or SIGTERM.

    Raises UserError when there is no study, or the extra `ui` is not installed.
    """
    config = locate(path)
    number = _study_number(config)
    if not _is_installed("optuna_dashboard"):
        raise UserError("`qtarget ui` needs optuna-dashboard, which is not installed; pip install 'qtarget[ui]'")
    with StopSignals() as signals:
        servers: list[Server] = []
        try:
            servers += start(config, number)
            _wait(servers, signals, console)
            if not signals.count:
                console.print("Ctrl-C stops them.")
                select.select([signals], [], [])
        finally:
            for server in servers:
                server.stop()


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # kept from being imported
        return False


def start(config: StudyConfig, number: int) -> list[Server]:
    """The servers of a study, starting."""
    dashboard, mlflow = free_ports(2)
    folder = config.study_folder
    servers = [
        _launch(
            "optuna-dashboard",
            f"http://{HOST}:{dashboard}/dashboard/studies/{number}",
            ["optuna_dashboard._cli", storage_url(config), "--host", HOST, "--port", str(dashboard)],
            folder / "optuna-dashboard.log",
        )
    ]
    uri = tracking_uri(config)
    if uri.startswith(("http://", "https://")):
        return servers  # it has a server already
    if uri != "none":
        arguments = [
            "mlflow",
            "ui",
            "--backend-store-uri",
            uri,
            "--host",
            HOST,
            "--port",
            str(mlflow),
            "--workers",
            "1",
        ]
        servers.append(_launch("MLflow", f"http://{HOST}:{mlflow}/#/experiments", arguments, folder / "mlflow-ui.log"))
    return servers


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _launch(name: str, link: str, module: Sequence[str], log: Path) -> Server:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for us: we end them in order
        )
    return Server(name, link, process, log)


def _wait(servers: Sequence[Server], signals: StopSignals, console: Console) -> None:
    """Print each link as soon as its server answers."""
    waiting, begun = list(servers), time.monotonic()
    while waiting and not signals.count:
        for server in [each for each in waiting if each.answers()]:
            waiting.remove(server)
            console.print(f"{server.name:<17} {server.link}", soft_wrap=True, highlight=False)
        if waiting and time.monotonic() - begun > START_SECONDS:
            raise RuntimeError(f"{waiting[0].name} did not answer within {START_SECONDS:.0f} s; see {waiting[0].log}")
        select.select([signals], [], [], 0.3)


def _study_number(config: StudyConfig) -> int:
    """What the dashboard calls the study. Raises UserError when its storage has none."""
    with contextlib.closing(open_storage(storage_url(config), config.study)) as storage:
        try:
            found: int = storage.backend.get_study_id_from_name(config.study)
        except KeyError:
            raise UserError(f"study {config.study!r} must exist, but {storage.shown} has none; run it first") from None
    return found
