"""Do an export's trainers and `qtarget train` make the same first step? Gradients of all parameters, in float32.

    python benchmarks/export_parity.py EXPORT --python ENV/bin/python
    python benchmarks/export_parity.py EXPORT --trainer axolotl --python ENV/bin/python

ENV needs torch, transformers and TRL, or axolotl; qtarget is kept out of that process whether it is installed there or
not. The script `train_trl.py`, or axolotl's own command with `axolotl.yaml` and its plugin, and `qtarget train` train
the export as it is, but in float32, unclipped and for `--steps` steps; before each optimiser step their gradients are
written down. Prints the largest relative difference over all parameters at the first step (L2, against
the norm of the parameter's gradient), that of the whole gradient at each step, and the logged losses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_pre_hook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--trainer", choices=["trl", "axolotl"], default="trl")
    parser.add_argument("--python", default=sys.executable, help="python of an environment with that trainer")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--effective-batch", type=int, help="sequences of a step, instead of the export's")
    parser.add_argument("--micro-batch", type=int, help="sequences of a forward pass, instead of the export's")
    parser.add_argument("--preset", help="another target, by the name of a published one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["trl", "axolotl", "qtarget"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        sides = {"trl": trl_side, "axolotl": axolotl_side, "qtarget": qtarget_side}
        sides[given.side](given.export, given.out, given.steps)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(given, Path(scratch))
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run both sides and compare what they wrote down."""
    folder = scratch / "export"
    shutil.copytree(given.export, folder)
    winner = yaml.safe_load((folder / "winner.yaml").read_text("utf-8"))
    changes = {"effective_batch": given.effective_batch, "micro_batch": given.micro_batch}
    winner["training"] |= {name: value for name, value in changes.items() if value is not None}
    winner["training"] |= {"precision": "fp32", "clip_norm": None, "steps": given.steps}
    winner["evaluation"] = None
    if given.preset is not None:
        from qtarget.search.export.loss import loss_source
        from qtarget.spaces import presets

        winner["target"] = presets.get(given.preset).model_dump(mode="json")
        (folder / "target_loss.py").write_text(loss_source(presets.get(given.preset)), encoding="utf-8")
    (folder / "winner.yaml").write_text(yaml.safe_dump(winner, allow_unicode=True), encoding="utf-8")
    rewrite_axolotl(folder, winner["training"])
    seconds = {}
    for side, python in (("qtarget", sys.executable), (given.trainer, given.python)):
        started = time.perf_counter()
        command = [python, __file__, str(folder), "--side", side, "--out", str(scratch / side)]
        subprocess.run([*command, "--steps", str(given.steps)], check=True, stdin=subprocess.PIPE)
        seconds[side] = round(time.perf_counter() - started, 1)
    mine, theirs = (torch.load(scratch / side / "gradients.pt") for side in ("qtarget", given.trainer))
    return {
        "parameters": len(mine[0]),
        "worst_parameter": max((relative(mine[0][name], theirs[0][name]), name) for name in mine[0])[0],
        "worst_name": max((relative(mine[0][name], theirs[0][name]), name) for name in mine[0])[1],
        "worst_share": max(float((mine[0][n] - theirs[0][n]).abs().max() / mine[0][n].abs().max()) for n in mine[0]),
        "gradient_by_step": [relative(flat(a), flat(b)) for a, b in zip(mine, theirs, strict=True)],
        "same_names": mine[0].keys() == theirs[0].keys(),
        "seconds": seconds,
    }


def rewrite_axolotl(folder: Path, training: dict[str, Any]) -> None:
    """Let axolotl's configuration follow a changed `winner.yaml`."""
    path = folder / "axolotl.yaml"
    settings = yaml.safe_load(path.read_text("utf-8"))
    size = max(n for n in range(1, training["micro_batch"] + 1) if training["effective_batch"] % n == 0)
    settings |= {"micro_batch_size": size, "gradient_accumulation_steps": training["effective_batch"] // size}
    settings.pop("max_grad_norm", None)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine - theirs).norm() / mine.norm().clamp(min=1e-30))


class Notes:
    """Gradients of a model at every optimiser step."""

    def __init__(self, out: Path) -> None:
        self.out, self.found, self.model = out, [], None
        out.mkdir(parents=True, exist_ok=True)
        register_optimizer_step_pre_hook(self.note)

    def note(self, *_: Any) -> None:
        named = {name: p.grad.detach().clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.found.append(named)

    def write(self) -> None:
        torch.save(self.found, self.out / "gradients.pt")


def trl_side(folder: Path, out: Path, steps: int) -> None:
    """The exported script, without qtarget."""
    sys.modules["qtarget"] = None  # type: ignore[assignment]  # importing it is an error from here on
    sys.path.insert(0, str(folder))
    import train_trl

    notes = Notes(out)
    trainer = train_trl.build(folder, out / "model", steps=steps, report_to="none", use_cpu=True, disable_tqdm=True)
    notes.model = trainer.model
    trainer.train()
    notes.write()


def axolotl_side(folder: Path, out: Path, steps: int) -> None:
    """axolotl's own command line, with the exported plugin and without qtarget."""
    sys.modules["qtarget"] = None  # type: ignore[assignment]
    sys.path.insert(0, str(folder))
    from axolotl.cli.train import do_cli
    from target_axolotl import TargetPlugin

    notes = Notes(out)
    TargetPlugin.post_trainer_create = lambda plugin, cfg, trainer: setattr(notes, "model", trainer.model)
    sys.argv[1:] = []  # it reads them too
    do_cli(str(folder / "axolotl.yaml"), output_dir=str(out / "model"))
    notes.write()


def qtarget_side(folder: Path, out: Path, steps: int) -> None:
    """`qtarget train`, in the process that it would start."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    from qtarget.search.engine.helper import Silent
    from qtarget.search.engine.train import Training
    from qtarget.search.study.winner_file import load_winner
    from qtarget.trainers.loop.optimizer import Optimizer

    notes, step = Notes(out), Optimizer.step

    def watched(optimizer: Optimizer, learning_rate: float) -> None:
        notes.found.append(optimizer.gradients())
        step(optimizer, learning_rate)

    Optimizer.step = watched  # type: ignore[method-assign]
    Training(load_winner(folder), out / "run", Silent()).finish()
    notes.write()


if __name__ == "__main__":
    main()
