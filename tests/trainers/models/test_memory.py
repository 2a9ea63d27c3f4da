"""A lack of memory is told from other failures by what raises it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from qtarget.trainers.models.memory import out_of_memory


def test_what_torch_itself_raises_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_messages_of_cuda_and_its_libraries(error: Exception, lack: bool) -> None:
    assert out_of_memory(error) is lack


PAGES = """
import resource, torch
from qtarget.trainers.models.memory import keep_freed, release

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if keep_freed():
    torch.ones(2**22 + 2**12)  # leaves room for a smaller one and its alignment
    kept = pages()
    release()
    print(kept, pages())
"""


def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    """Counted in pages that the system had to hand out for a tensor of 16 MiB, in a process that holds little else."""
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this libc keeps what it likes")
    kept, anew = map(int, done.stdout.split())
    assert anew > 2 * kept + 4
