"""Engines on this host: one process or several ranks each, every engine on devices of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from ...spaces.errors import UserError
from .process import EngineProcess, Launch, RunningEngine
from .ranks import EngineRanks


def local_launch(ranks: int = 1) -> Launch:
    """Starts engines of `ranks` processes on this host, each engine on its own devices where there are enough.

    Raises UserError when one engine needs more devices than there are.
    """
    devices = visible_devices()
    if ranks > 1 and 0 < len(devices) < ranks:
        raise UserError(
            f"`engine.ranks` must be at most the number of devices, but got {ranks}, and this host has {len(devices)}; "
            "lower it",
            field="engine.ranks",
        )

    def launch(folder: Path, index: int) -> RunningEngine:
        environment = device_group(devices, index, ranks)
        if ranks == 1:
            return EngineProcess(folder, index, environment)
        return EngineRanks(folder, index, ranks, environment)

    return launch


def visible_devices() -> list[str]:
    """Names of the NVIDIA devices that engines may use; empty where there are none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, _ in enumerate(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE))]


def device_group(devices: list[str], index: int, size: int) -> dict[str, str]:
    """Environment of engine `index` on its `size` devices; groups are shared when there are more engines."""
    groups = len(devices) // size
    if groups == 0:
        return {}
    first = index % groups * size
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices[first : first + size])}
