"""Forks gloo ranks that train, die at a chosen moment, and are started again; run by test_checkpoint_shards.py.

Argument: folder with base/ and sums.jsonl. Leaves a folder and the weights of each run there, and prints as JSON the
exit status of the ranks and the first step of each run. Forked, since imports take longer than everything else here.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors.torch import save_file

from qtarget.spaces import presets
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.load import load_tokenizer
from qtarget.trainers.models.ranks import whole
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings

BASE = ModelSettings(path="base")
SETTINGS = TrainingSettings(steps=6, effective_batch=8, micro_batch=8, learning_rate=3e-3, checkpoint_every=2)


@dataclass(frozen=True)
class Moment:
    """When a rank dies: at a step, or in the `time`-th call of the operating system of a kind on a path."""

    rank: int
    step: int = 0
    call: str = ""
    path: str = ""
    time: int = 1


MOMENTS = {
    "share": Moment(1, call="open", path="step-000004.part/shard-00002-model-00001-of-00001.safetensors"),
    "commit": Moment(0, call="os.rename", path="step-000004.part"),
    "removal": Moment(0, call="os.rename", path="step-000002"),
    "step": Moment(1, step=5),
}
REPLICATED = Moment(0, call="os.rename", path="state.safetensors.part", time=2)


class Ranks:
    """Runs of one process a rank, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = load_demonstrations(
            DataSettings(path="sums.jsonl", max_length=64), load_tokenizer(BASE, folder), folder
        )
        self.report: dict[str, Any] = {}

    def run(
        self, name: str, ranks: int, *, sharded: bool = True, moment: Moment | None = None, full_disk: bool = False
    ) -> None:
        """Train in the folder `name`, from where it stands."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (self.folder / "first.txt").unlink(missing_ok=True)
        alive = {}
        for rank in range(ranks):
            pid = os.fork()
            if pid == 0:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_PORT=str(port))
                self._child(name, sharded, moment, full_disk)
            alive[pid] = rank
        ended = {}
        while alive:
            pid, status = os.wait()
            ended[alive.pop(pid)] = os.waitstatus_to_exitcode(status)
            if moment is not None:  # what launchers do to the others
                for other in alive:
                    os.kill(other, signal.SIGKILL)
        first = self.folder / "first.txt"
        found = {"exit": [ended[rank] for rank in range(ranks)], "first": int(first.read_text())}
        self.report[f"{name}-killed" if moment else name] = found

    def _child(self, *job: Any) -> None:
        try:
            self._train(*job)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)

    def _train(self, name: str, sharded: bool, moment: Moment | None, full_disk: bool) -> None:
        rank = PartialState(cpu=True).process_index
        resident = ResidentModel(BASE, self.folder, sharded=sharded)
        model = resident.fresh(seed=5)
        mine = moment if moment is not None and moment.rank == rank else None
        if mine is not None and mine.call:
            sys.addaudithook(killer(mine))
        first = self.folder / "first.txt"

        def on_step(report: Any) -> bool:
            if rank == 0 and not first.exists():
                first.write_text(str(report.step))
            if mine is not None and report.step == mine.step:
                die()
            if full_disk and report.step == 3 and rank == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            return False

        folder, target = self.folder / name, presets.get("dft")
        train(
            model,
            self.data,
            target,
            SETTINGS,
            seed=3,
            folder=folder,
            on_step=on_step,
            pad_token_id=resident.pad_token_id,
        )
        weights = {key: whole(parameter.detach()) for key, parameter in model.named_parameters()}
        if rank == 0:
            save_file(weights, self.folder / f"{name}.safetensors")
        PartialState().wait_for_everyone()


def killer(moment: Moment) -> Any:
    left = [moment.time]

    def hook(event: str, arguments: Any) -> None:
        if event == moment.call and str(arguments[0]).endswith(moment.path):
            left[0] -= 1
            if left[0] == 0:
                die()

    return hook


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    ranks = Ranks(folder)
    ranks.run("straight", 2)
    for name, moment in MOMENTS.items():
        ranks.run(name, 2, moment=moment)
        if name == "step":
            for copy in ("four", "replicated", "alone", "damaged"):
                shutil.copytree(folder / name, folder / copy)
        ranks.run(name, 2)
    ranks.run("four", 4)
    ranks.run("replicated", 2, sharded=False)
    ranks.run("full", 2, full_disk=True)
    ranks.run("ddp-straight", 2, sharded=False)
    ranks.run("ddp", 2, sharded=False, moment=REPLICATED)
    ranks.run("ddp", 2, sharded=False)
    print(json.dumps(ranks.report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
