"""`qtarget ui`: optuna-dashboard and the MLflow UI of a study or a campaign, on free local ports, until Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...spaces.errors import UserError
from ..launchers.process import SAFE
from ..loop.signals import StopSignals
from ..store.storage import open_storage
from ..store.study import storage_url
from ..study.campaign_config import is_single, load_campaign
from ..study.config import StudyConfig
from ..study.config_file import FOLDER_FILE, find_study
from ..study.secrets import shown
from ..tracking.address import tracking_uri
from ..tracking.connection import LEVEL, logging_level
from .dashboard import VARIABLE

HOST = "127.0.0.1"
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks servers of this host, past any proxy, which cannot reach them."""
MOST_STORES = 4
"""MLflow servers, of some 200 MB each; `tracking.uri` in a campaign's common part needs only one."""
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
            with LOCAL.open(self.link.split("#")[0], timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # not yet
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


def show_ui(paths: Sequence[Path], console: Console) -> None:
    """Start the servers of a study or of all studies of a campaign, print their links, stop them on Ctrl-C or SIGTERM.

    Raises UserError when there is no study, or the extra `ui` is not installed.
    """
    configs, page = _shown(paths, console)
    if not _is_installed("optuna_dashboard"):
        raise UserError("`qtarget ui` needs optuna-dashboard, which is not installed; pip install 'qtarget[ui]'")
    with StopSignals() as signals:
        servers: list[Server] = []
        try:
            servers += start(configs, page, console)
            _wait(servers, signals, console)
            if not signals.count:
                console.print("Ctrl-C stops them.")
                select.select([signals], [], [])
        finally:
            for server in servers:
                server.stop()


def _shown(paths: Sequence[Path], console: Console) -> tuple[list[StudyConfig], str]:
    """The studies to show, and the dashboard's page of them; pairs that were never started are named and left out."""
    if is_single(paths):
        config = find_study(paths[0])
        return [config], f"/studies/{_study_number(config)}"
    studies = load_campaign(paths).studies
    started = [study for study in studies if (study.study_folder / FOLDER_FILE).is_file()]
    if not started:
        raise UserError("a campaign must have been run to be shown, but none of its studies was; run it first")
    for study in studies:
        if study not in started:
            console.print(
                f"{study.study} was never started, so there is nothing to show of it", soft_wrap=True, markup=False
            )
    return started, ""


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # kept from being imported
        return False


def start(configs: Sequence[StudyConfig], page: str, console: Console) -> list[Server]:
    """The servers of some studies, starting: one dashboard over all storages, and an MLflow UI for each store."""
    urls = list(dict.fromkeys(storage_url(config) for config in configs))
    stores = _stores(configs)
    for name in list(stores)[MOST_STORES:]:
        console.print(
            f"Not started, to save memory: mlflow ui --backend-store-uri {shown(stores.pop(name))}",
            soft_wrap=True,
            markup=False,
        )
    ports = free_ports(1 + len(stores))
    folder = configs[0].study_folder
    dashboard = _launch(
        "optuna-dashboard",
        f"http://{HOST}:{ports[0]}/dashboard{page}",
        ["qtarget.search.commands.dashboard", HOST, str(ports[0])],
        folder / "optuna-dashboard.log",
        {VARIABLE: json.dumps(urls)},
    )
    return [
        dashboard,
        *(_mlflow(name, uri, port, folder) for (name, uri), port in zip(stores.items(), ports[1:], strict=True)),
    ]


def _stores(configs: Sequence[StudyConfig]) -> dict[str, str]:
    """MLflow's stores that have no server yet, each once, by the name of the first study in it."""
    found: dict[str, str] = {}
    for config in configs:
        uri = tracking_uri(config)
        if uri != "none" and uri not in found.values() and not uri.startswith(("http://", "https://")):
            found[config.study] = uri
    return {"" if len(found) == 1 else name: uri for name, uri in found.items()}


def _mlflow(name: str, uri: str, port: int, folder: Path) -> Server:
    log = f"mlflow-ui-{name}.log" if name else "mlflow-ui.log"
    arguments = ["mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    link = f"http://{HOST}:{port}/#/experiments?workflowType=machine_learning"  # else its pages are those of agents
    return _launch(
        f"MLflow {name}".rstrip(),
        link,
        arguments,
        folder / log,
        # its queue of jobs, for judges and prompts, takes eight processes more
        {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", LEVEL: logging_level()},
    )


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _launch(name: str, link: str, module: Sequence[str], log: Path, environment: Mapping[str, str]) -> Server:
    """Start a server; what may hold a password comes by the environment, which other users cannot read."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **SAFE, **environment},
            start_new_session=True,  # Ctrl-C is for us: we end them in order
        )
    return Server(name, link, process, log)


def _wait(servers: Sequence[Server], signals: StopSignals, console: Console) -> None:
    """Print each link as soon as its server answers."""
    waiting, begun = list(servers), time.monotonic()
    width = max(len(server.name) for server in servers)
    while waiting and not signals.count:
        for server in [each for each in waiting if each.answers()]:
            waiting.remove(server)
            console.print(f"{server.name:<{width}} {server.link}", soft_wrap=True, highlight=False)
        if waiting and time.monotonic() - begun > START_SECONDS:
            raise RuntimeError(f"{waiting[0].name} did not answer within {START_SECONDS:.0f} s; see {waiting[0].log}")
        select.select([signals], [], [], 0.3)


def _study_number(config: StudyConfig) -> int:
    """What the dashboard calls the study. Raises UserError when its storage has none."""
    with contextlib.closing(open_storage(storage_url(config), config.study, reading=True)) as storage:
        try:
            found: int = storage.backend.get_study_id_from_name(config.study)
        except KeyError:
            raise UserError(f"study {config.study!r} must exist, but {storage.shown} has none; run it first") from None
    return found
