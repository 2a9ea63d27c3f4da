"""How a lack of memory shows, on a GPU and on a CPU, and what a process keeps of it: who halves a batch asks here."""

from __future__ import annotations

import ctypes

import torch

SIGNS = (
    "out of memory",  # CUDA's own, outside torch's allocator too: "CUDA error: out of memory"
    "not enough memory",
    "can't allocate memory",
    "can't start new thread",  # no room for its stack, where address space is what is limited
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and its like: a library found no room for its workspace
)

MALLOC = {-1: 2**31 - 1, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: what is given back, and what never is kept, in bytes; their limits."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the host could not give the memory asked for."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def keep_freed() -> bool:
    """Let this process reuse memory that it has freed instead of giving it back at once; whether its libc can.

    Each tensor of a few megabytes otherwise comes from the system anew, page by page, which takes longer than to fill
    it: a third of an optimiser step on a CPU.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    return adjust is not None and all(adjust(name, value) == 1 for name, value in MALLOC.items())


def release() -> None:
    """Give what is kept for later back to GPU and system; call it where no traceback holds the tensors."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
