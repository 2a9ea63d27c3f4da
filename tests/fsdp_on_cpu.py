"""Runs a script with accelerate's FSDP 2 on CPU ranks: `accelerate launch --config_file F.yaml fsdp_on_cpu.py SCRIPT`.

accelerate 1.15 turns to FSDP for accelerators alone (`AcceleratorState`: MULTI_CPU is not in its list, and DDP takes
over without a word), and PyTorch averages gradients by an operation that gloo does not have. Both are lifted here, and
nothing else: wrapping, precision, clipping and saving are accelerate's own.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch.distributed.fsdp
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def allow_fsdp() -> None:
    """Do on CPU ranks what `AcceleratorState` does on GPUs."""
    plain = AcceleratorState.__init__

    def init(self: Any, *given: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        plain(self, *given, fsdp_plugin=fsdp_plugin, **options)
        if self.distributed_type is DistributedType.MULTI_CPU and fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init


def average_by_sums() -> None:
    """Divide summed gradients by the number of ranks, which is the same mean."""
    plain = torch.distributed.fsdp.fully_shard

    def fully_shard(module: Any, **options: Any) -> Any:
        sharded = plain(module, **options)
        for each in module if isinstance(module, list) else [module]:
            each.set_force_sum_reduction_for_comms(True)
        return sharded

    torch.distributed.fsdp.fully_shard = fully_shard


if __name__ == "__main__":
    assert os.environ.get("ACCELERATE_USE_FSDP") == "true" and not torch.accelerator.is_available()
    allow_fsdp()
    average_by_sums()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
