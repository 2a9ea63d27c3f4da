"""The folder of results: one JSON file a measurement, whole or not there.

A measurement is `done`, `failed` or `skipped`. Done ones are never repeated; the others are tried again by the next
call. One that ended the process (a crash, a hang) has left its mark, and is failed for the rest of its call.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ALL = "all.json"
MACHINE = "machine.json"
UNFINISHED = "unfinished.txt"
SAME = ("device", "memory_gib", "torch", "triton", "transformers", "sizes")
"""What all results of a folder have in common."""


class OtherMachine(Exception):
    """The folder holds results of another device, other libraries or other sizes."""


class Results:
    """What has been measured so far, and what this call adds."""

    def __init__(self, folder: Path, call: str, sizes: str) -> None:
        """`call` names one run of the script, however often its process is started. Raises OtherMachine."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.call = folder, call
        self._spread()
        machine = facts() | {"sizes": sizes}
        known = read(folder / MACHINE)
        differs = [] if known is None else [name for name in SAME if known.get(name) != machine.get(name)]
        if differs:
            raise OtherMachine(
                f"one folder must hold the results of one machine, but {folder} was begun with another "
                f"{', '.join(differs)}; name another folder"
            )
        write(folder / MACHINE, machine)
        self._bury()

    def settled(self, name: str) -> bool:
        """Whether there is nothing more to try in this call."""
        found = read(self.folder / f"{name}.json")
        if found is None:
            return False
        return found["state"] == "done" or (found["state"] == "failed" and found["call"] == self.call)

    def begin(self, name: str) -> None:
        """What follows may end the process."""
        (self.folder / UNFINISHED).write_text(f"{self.call} {name}", "utf-8")

    def done(self, name: str, seconds: float, values: dict[str, Any]) -> None:
        self._put(name, {"state": "done", "seconds": round(seconds, 2), "values": values})

    def failed(self, name: str, seconds: float, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))[-3000:]
        why = f"{type(error).__name__}: {error}"[:1000]
        self._put(name, {"state": "failed", "seconds": round(seconds, 2), "why": why, "traceback": trace})

    def skipped(self, name: str, why: str) -> None:
        self._put(name, {"state": "skipped", "why": why})

    def values(self, name: str) -> dict[str, Any] | None:
        """What a measurement found, None when it is not done."""
        found = read(self.folder / f"{name}.json")
        return found["values"] if found is not None and found["state"] == "done" else None

    def _spread(self) -> None:
        """What a folder knows of which only `all.json` was kept."""
        found = read(self.folder / ALL)
        if found is None:
            return
        rows = {MACHINE: found["machine"]} | {f"{row['name']}.json": row for row in found["measurements"]}
        for name, content in rows.items():
            if not (self.folder / name).exists():
                write(self.folder / name, content)

    def _bury(self) -> None:
        """The measurement in which an earlier process ended, if there is one."""
        mark = self.folder / UNFINISHED
        if not mark.is_file():
            return
        call, _, name = mark.read_text("utf-8").partition(" ")
        if name and not self.settled(name) and call == self.call:
            self._put(name, {"state": "failed", "why": "the process ended in it; run.log says more"})
        mark.unlink(missing_ok=True)

    def _put(self, name: str, found: dict[str, Any]) -> None:
        write(self.folder / f"{name}.json", {"name": name, "call": self.call, **found})
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        write(self.folder / ALL, collected(self.folder))


def collected(folder: Path) -> dict[str, Any]:
    """All results of a folder: the machine, and the measurements by name."""
    found = (read(path) for path in sorted(folder.glob("*.json")) if path.name not in (ALL, MACHINE))
    return {"machine": read(folder / MACHINE), "measurements": [each for each in found if each is not None]}


def read(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is no whole one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def write(path: Path, content: dict[str, Any]) -> None:
    """The whole file or the one before."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    os.replace(unfinished, path)


def facts() -> dict[str, Any]:
    """The device and the libraries that a result depends on."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    for name in ("triton", "transformers", "accelerate", "peft", "liger_kernel", "trl"):
        found[name] = _version(name)
    if not torch.cuda.is_available():
        return found | {"device": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return found | {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        return None
