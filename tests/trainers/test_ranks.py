"""Two ranks on one machine train the same weights as one, and stop together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import torch
from safetensors.torch import load_file

from qtarget.spaces import presets
from qtarget.trainers.settings import TrainingSettings
from qtarget.trainers.sft import train

SETTINGS = TrainingSettings(steps=4, effective_batch=8, micro_batch=2, learning_rate=3e-3, checkpoint_every=100)

RANK = """
import sys, torch
from pathlib import Path
from accelerate import PartialState
from transformers import AutoModelForCausalLM
from safetensors.torch import save_file
from qtarget.spaces import presets
from qtarget.trainers.data import load_demonstrations
from qtarget.trainers.models import load_tokenizer
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings
from qtarget.trainers.sft import train

folder = Path(sys.argv[1])
rank = PartialState(cpu=True).process_index
assert PartialState().num_processes == 2
tokenizer = load_tokenizer(ModelSettings(path="base"), folder)
with PartialState().main_process_first():
    data = load_demonstrations(DataSettings(path="sums.jsonl", max_length=64), tokenizer, folder)
settings = TrainingSettings.model_validate_json(sys.argv[2])

def run(name, stop_at):
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    losses = []

    def on_step(report):
        losses.append(report.loss)
        return rank == 1 and report.step == stop_at  # only the second rank wants to stop

    outcome = train(model, data, presets.get("psft"), settings, seed=3, folder=folder / name, on_step=on_step)
    (folder / f"{name}-{rank}.txt").write_text(f"{outcome.status} {outcome.step} {losses}")
    save_file({name: parameter.detach() for name, parameter in model.named_parameters()}, folder / f"{name}-{rank}")

run("stopped", 2)
run("whole", None)
"""


def two_ranks(folder):
    (folder / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(folder / "rank.py"), str(folder), SETTINGS.model_dump_json()]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output


def test_two_ranks_train_what_one_trains_and_stop_at_the_same_step(sums_file, make_model, tokenizer, sums):
    folder = sums_file.parent
    make_model().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    two_ranks(folder)
    for name, outcome in (("stopped", "stopped 2 "), ("whole", "finished 4 ")):
        reports = [(folder / f"{name}-{rank}.txt").read_text() for rank in (0, 1)]
        assert reports[0] == reports[1]
        assert reports[0].startswith(outcome)
        weights = [load_file(folder / f"{name}-{rank}") for rank in (0, 1)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    alone = make_model()
    train(alone, sums, presets.get("psft"), SETTINGS, seed=3, folder=None)
    for key, parameter in alone.named_parameters():
        torch.testing.assert_close(weights[0][key], parameter.detach(), atol=1e-4, rtol=0)
