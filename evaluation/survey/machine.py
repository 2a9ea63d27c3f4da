"""The device of this machine: its name, its memory, how fast it multiplies."""

from __future__ import annotations

import time

import psutil
import torch

from .facts import MachineFacts

SECONDS = 0.2
"""So long the device multiplies."""


def machine_facts() -> MachineFacts:
    """Of the first GPU, or of the CPU where there is none."""
    if not torch.cuda.is_available():
        free = psutil.virtual_memory().available
        speed = _measured(512, torch.float32, torch.device("cpu"))
        return MachineFacts(device="CPU", is_gpu=False, memory_bytes=free, multiply_flops=speed)
    device = torch.device("cuda")
    free, _ = torch.cuda.mem_get_info(device)
    speed = _measured(4096, torch.bfloat16, device)
    name = torch.cuda.get_device_name(device)
    return MachineFacts(device=name, is_gpu=True, memory_bytes=free, multiply_flops=speed)


def _measured(size: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of products of two (size, size) matrices."""
    one = torch.ones(size, size, dtype=dtype, device=device)
    _multiply(one, 1)
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < SECONDS:
        _multiply(one, 4)
        done += 4
    return 2 * size**3 * done / elapsed


def _multiply(one: torch.Tensor, times: int) -> None:
    for _ in range(times):
        torch.mm(one, one)
    if one.is_cuda:
        torch.cuda.synchronize(one.device)
