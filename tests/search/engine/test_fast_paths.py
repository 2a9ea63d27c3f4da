"""What `qtarget check` says of a GPU's fast paths, from facts about GPUs that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qtarget.search.engine.check import DeviceFacts, device_facts, fast_paths

BEST = DeviceFacts(
    name="NVIDIA H200", capability=(9, 0), triton="3.6.0", precision="bf16", float32_products="highest",
    dense_loss=False, attention="sdpa", flash_attention=True, backend="vllm", vllm="0.32.0",
)  # fmt: skip


def said(facts: DeviceFacts) -> dict[str, str]:
    """Each path with its sentence."""
    return dict(line.split(": ", 1) for line in fast_paths(facts))


def test_a_machine_with_everything_uses_everything() -> None:
    assert said(BEST) == {
        "loss": "the Triton kernel (Triton 3.6.0)",
        "products": "bf16 with sums in float32",
        "update": "AdamW in fused kernels",
        "attention": "torch's fused kernels (sdpa)",
        "packing (`qtarget train`)": "flash attention, each sequence by itself",
        "answers": "vLLM 0.32.0",
    }


@pytest.mark.parametrize(
    ("path", "change", "why"),
    [
        ("loss", {"triton": None}, "Triton is not installed"),
        ("loss", {"dense_loss": True}, "`training.loss: dense`"),
        ("products", {"precision": "fp32"}, "`training.precision: bf16` is the fast path"),
        ("products", {"precision": "fp32", "capability": (7, 5)}, "no faster units"),
        ("products", {"capability": (7, 5), "name": "Tesla T4"}, "Tesla T4 (compute capability 7.5) has no units"),
        ("products", {"precision": "fp32", "float32_products": "high"}, "10 bits of mantissa"),
        ("attention", {"attention": "eager"}, "asks for `eager`"),
        ("packing (`qtarget train`)", {"flash_attention": False}, "flash-attn is not installed"),
        ("packing (`qtarget train`)", {"precision": "fp32"}, "needs `training.precision: bf16`"),
        ("answers", {"backend": "transformers"}, "0.32.0 is not asked for"),
        ("answers", {"backend": "transformers", "vllm": None}, "pip install qtarget[vllm]"),
    ],
)
def test_a_path_that_is_not_taken_says_why(path: str, change: dict[str, object], why: str) -> None:
    found = said(replace(BEST, **change))
    assert why in found[path]
    assert {name for name, line in found.items() if line != said(BEST)[name]} >= {path}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_machine_without_a_gpu_has_none() -> None:
    assert device_facts(None, None) is None  # type: ignore[arg-type]
