"""The lock holds what pyproject.toml asks for, on every Python; deprecations fail a test, or are counted when asked."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest
from imports import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LEFT_OUT = {"vllm"}
"""Extras with a stack of their own, which no command here installs."""


def asked() -> Iterator[Requirement]:
    """Direct requirements, those of extras too."""
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in LEFT_OUT}
    for line in [*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            yield requirement


def pins(text: str, python: str) -> dict[str, str]:
    """Name to version of the lines that hold on Linux with this Python; no name twice."""
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.20",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
    }
    found: dict[str, str] = {}
    for line in text.splitlines():
        pin = Requirement(line.partition("#")[0]) if line and not line.startswith("#") else None
        if pin is not None and (pin.marker is None or pin.marker.evaluate(environment)):
            (exact,) = pin.specifier
            assert exact.operator == "==" and pin.name not in found, line
            found[canonicalize_name(pin.name)] = exact.version
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_has_one_version_of_everything_asked_for(python: str) -> None:
    locked = pins((ROOT / "lock.txt").read_text("utf-8"), python)
    wrong = [
        f"{requirement}: {locked.get(canonicalize_name(requirement.name))}"
        for requirement in asked()
        if not requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == [], "pyproject.toml has changed: make lock"
    assert len(locked) > 150, "what these require is locked too"


def test_the_lock_leaves_cuda_to_torch() -> None:
    names = pins((ROOT / "lock.txt").read_text("utf-8"), "3.11")
    assert [name for name in names if re.match("nvidia-|cuda-|triton$", name)] == []


def test_every_requirement_has_a_lower_bound() -> None:
    assert [str(each) for each in asked() if not any(bound.operator == ">=" for bound in each.specifier)] == []


@pytest.mark.parametrize(("options", "outcome"), [([], "3 failed"), (["--count-deprecations"], "1 failed, 2 passed")])
@pytest.mark.slow
def test_deprecations_fail_unless_they_are_counted(tmp_path, options: list[str], outcome: str) -> None:
    for name in ("pyproject.toml", "tests/conftest.py", "tests/made_once.py", "tests/nursery.py"):
        shutil.copy(ROOT / name, tmp_path)
    kinds = ("DeprecationWarning", "FutureWarning", "UserWarning")
    tests = [f"def test_{kind}():\n    warnings.warn('its {kind}', {kind})\n" for kind in kinds]
    (tmp_path / "test_warns.py").write_text("\n".join(["import warnings", *tests]))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-o",
        "pythonpath=.",
        "test_warns.py",
        *options,
    ]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert outcome in said
    assert ("FutureWarning: its FutureWarning (first: test_warns.py::test_FutureWarning)" in said) == bool(options)
