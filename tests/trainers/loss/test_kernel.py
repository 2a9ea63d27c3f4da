"""The Triton kernel without a GPU: through Triton's interpreter, and compiled for GPUs that are not here.

In child processes, since the interpreter is chosen at import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qtarget.trainers.loss import tail_softmax

pytestmark = pytest.mark.slow


def report_of(name: str, interpret: str) -> dict[str, Any]:
    """What a script beside this one prints."""
    pytest.importorskip("triton", reason="Triton is not installed: the GPU kernel cannot be tried here")
    script = Path(__file__).with_name(name)
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def errors() -> dict[str, Any]:
    return report_of("interpreted_kernel.py", interpret="1")


def test_the_kernel_compiles_for_gpus_that_are_not_here() -> None:
    """Between the loads of a block and its stores, which may overlap them, stands a barrier; nothing spills."""
    found = report_of("compiled_kernel.py", interpret="0")
    assert len(found) == 8
    for case, made in found.items():
        assert made["binary"] and made["wide loads"] and not made["local memory"], case
        assert made["first after the last load"] == "barrier", case


def test_kernel_equals_the_torch_pass(errors: dict[str, Any]) -> None:
    assert len(errors["kernel"]) == 8
    for case, found in errors["kernel"].items():
        shape_tolerance = 2**-8 if "bfloat16" in case else 1e-6
        assert found["top"] == 0.0, case
        assert found["shape"] <= shape_tolerance, case
        assert max(found["log_mass"], found["mean"], found["highest"]) <= 1e-5, case


def test_loss_through_the_kernel_equals_the_loss_through_torch(errors: dict[str, Any]) -> None:
    assert len(errors["loss"]) == 16
    assert max(errors["loss"].values()) <= 1e-5, errors["loss"]


@pytest.mark.parametrize(
    ("device", "dtype", "triton", "taken"),
    [
        ("cuda", torch.float32, True, True),
        ("cuda", torch.float32, False, False),
        ("cuda", torch.float64, True, False),
        ("cpu", torch.float32, True, False),
    ],
)
def test_torch_takes_what_the_kernel_cannot(
    device: str, dtype: torch.dtype, triton: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_softmax, "HAS_TRITON", triton)
    assert tail_softmax.has_kernel(torch.device(device), dtype) is taken
