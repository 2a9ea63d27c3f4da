"""The batch script of docs/clusters.md as SLURM would run it, with a program in qtarget's place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs" / "clusters.md"
STAND_IN = """#!/bin/bash
echo "$@" > said
[ "$1" = wait ] || exit "$1"
trap 'sleep 0.3; exit 130' TERM
touch ready
while :; do sleep 0.05; done
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (text,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "qtarget.sbatch"
    path.write_text(text)
    (tmp_path / "qtarget").write_text(STAND_IN)
    (tmp_path / "qtarget").chmod(0o755)
    return path


def start(script: Path, *arguments: str) -> subprocess.Popen[bytes]:
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(["bash", script, *arguments], cwd=script.parent, env={**os.environ, "PATH": path})


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_script_ends_as_qtarget_does(script: Path, status: int) -> None:
    assert start(script, str(status), "with a space").wait(200) == status
    assert (script.parent / "said").read_text() == f"{status} with a space\n"


def test_a_signal_is_handed_on_and_what_is_kept_is_no_failure(script: Path) -> None:
    with start(script, "wait") as job:
        while not (script.parent / "ready").exists():
            assert job.poll() is None
        job.send_signal(signal.SIGTERM)
        assert job.wait(200) == 0
