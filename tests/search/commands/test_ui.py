"""The dashboards of a study as real processes: they answer on local ports, and end with the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from report_study import searched
from rich.console import Console

from qtarget.search.commands.ui import free_ports, show_ui
from qtarget.spaces.errors import UserError

pytestmark = pytest.mark.slow


def test_the_dashboard_answers_until_ctrl_c(tmp_path: Path) -> None:
    """Also where requests go through a proxy, which does not know servers of this host."""
    config = searched(tmp_path)
    command = [sys.executable, "-m", "qtarget", "ui", str(config.study_folder)]
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    environment = {**os.environ, **proxies}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as shown:
        assert shown.stdout is not None
        line = shown.stdout.readline()
        found = re.fullmatch(r"optuna-dashboard +(http://127\.0\.0\.1:\d+/dashboard/studies/1)\n", line)
        assert found is not None, line
        with urllib.request.urlopen(found[1], timeout=200) as page:
            assert page.status == 200 and b"<title>" in page.read()
        servers = psutil.Process(shown.pid).children(recursive=True)
        assert servers
        os.kill(shown.pid, signal.SIGINT)
        assert shown.wait(200) == 0
    _, alive = psutil.wait_procs(servers, timeout=200)
    assert alive == []


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = searched(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match=r"pip install 'qtarget\[ui\]'"):
        show_ui([config.study_folder], Console())


def test_a_study_that_never_ran_has_no_dashboard(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold study\.json"):
        show_ui([tmp_path], Console())


def test_ports_are_free_and_different() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3 and all(1024 < port < 65536 for port in ports)
