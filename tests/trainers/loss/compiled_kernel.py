"""Compiles the Triton kernel for GPUs that need not be here; prints one JSON object: what became of each build."""

from __future__ import annotations

import json
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from qtarget.trainers.loss import row_kernel
from qtarget.trainers.loss.head import LOWEST_LOGIT

POINTERS = {"logits": "*fp32", "log_mass": "*fp32", "mean": "*fp32", "largest": "*fp32"}
NUMBERS = {"vocab": "i32", "logits_stride": "i32", "shape_stride": "i32", "softcap": "fp32"}


def build(capability: int, dtype: str, capped: bool) -> dict[str, Any]:
    """As for a vocabulary that is a multiple of 16: pointers and strides are aligned, so loads are wide."""
    kernel = row_kernel._tail_kernel
    types = POINTERS | NUMBERS | {"shape": f"*{dtype}"}
    aligned = [name for name in types if name != "softcap"]
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in kernel.arg_names},
        constexprs={"CAPPED": capped, "LOWEST": LOWEST_LOGIT, "BLOCK": row_kernel.BLOCK},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": row_kernel.WARPS})
    lines = made.asm["ptx"].splitlines()
    last_load = max(number for number, line in enumerate(lines) if "ld.global" in line)
    after = [line for line in lines[last_load:] if "st.global" in line or "bar.sync" in line]
    return {
        "wide loads": sum("ld.global" in line and ".v4" in line for line in lines),
        "local memory": sum(".local" in line for line in lines),
        "first after the last load": "barrier" if "bar.sync" in after[0] else "store",
        "binary": len(made.asm["cubin"]) > 0,
    }


def main() -> None:
    found = {
        f"sm_{capability}, {dtype}, {'capped' if capped else 'plain'}": build(capability, dtype, capped)
        for capability in (80, 90)
        for dtype in ("bf16", "fp32")
        for capped in (False, True)
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
