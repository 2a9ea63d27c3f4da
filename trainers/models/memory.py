"""How a lack of memory shows, on a GPU and on a CPU: every place that halves its batch asks here."""

from __future__ import annotations

import torch

SIGNS = (
    "out of memory",  # CUDA's own, outside torch's allocator too: "CUDA error: out of memory"
    "not enough memory",
    "can't allocate memory",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and its like: a library found no room for its workspace
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the host could not give the memory asked for."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def release() -> None:
    """Give what the allocator keeps for later back to the GPU; call it where no traceback holds the tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
