"""A killed run continues as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.loop.checkpoint import checkpoint_file
from qtarget.trainers.loop.sft import train
from qtarget.trainers.models.load import attach_lora
from qtarget.trainers.settings import LoraSettings, TrainingSettings
from qtarget.trainers.teachers.sources import FrozenModel

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(steps=7, effective_batch=8, micro_batch=4, learning_rate=3e-3, checkpoint_every=2)

RUN_AND_HANG = """
import sys, time, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from qtarget.spaces import presets
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.load import load_tokenizer
from qtarget.trainers.settings import DataSettings, ModelSettings, TrainingSettings
from qtarget.trainers.loop.sft import train

folder = Path(sys.argv[1])
tokenizer = load_tokenizer(ModelSettings(path="base"), folder)
data = load_demonstrations(DataSettings(path="sums.jsonl", max_length=64), tokenizer, folder)
model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
settings = TrainingSettings.model_validate_json(sys.argv[2])

def hang(report):
    if report.step == 5:
        (folder / "hanging").touch()
        time.sleep(300)
    return False

train(model, data, presets.get("dft"), settings, seed=3, folder=folder / "trial", on_step=hang)
"""


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def stop_and_resume(make, data, target, folder, settings=SETTINGS, **extras):
    """Final models of an undisturbed run and of one that stopped after step 3."""
    straight, stopped, resumed = make(), make(), make()
    train(straight, data, target, settings, seed=3, folder=None, **extras_of(straight, extras))
    stop = lambda report: report.step == 3  # noqa: E731
    train(stopped, data, target, settings, seed=3, folder=folder, on_step=stop, **extras_of(stopped, extras))
    assert not same(straight, stopped)
    outcome = train(resumed, data, target, settings, seed=3, folder=folder, **extras_of(resumed, extras))
    assert outcome.step == settings.steps
    return straight, resumed


def extras_of(model, extras):
    return {name: make(model) for name, make in extras.items()}


def test_sigkill_loses_only_the_steps_since_the_checkpoint(make_model, sums, sums_file, tokenizer):
    folder = sums_file.parent
    make_model().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    command = [sys.executable, "-c", RUN_AND_HANG, str(folder), SETTINGS.model_dump_json()]
    with subprocess.Popen(command, start_new_session=True) as process:
        deadline = time.monotonic() + 200
        while not (folder / "hanging").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    straight, resumed = make_model(), make_model(seed=8)
    train(straight, sums, presets.get("dft"), SETTINGS, seed=3, folder=None)
    steps = []
    on_step = lambda report: bool(steps.append(report.step))  # noqa: E731
    outcome = train(resumed, sums, presets.get("dft"), SETTINGS, seed=3, folder=folder / "trial", on_step=on_step)
    assert (outcome.status, steps) == ("finished", [5, 6, 7])
    assert same(straight, resumed)


@pytest.mark.parametrize("name", ["dft", "psft", "sft_kl", "curiosft"])
def test_resume_is_bit_for_bit(make_model, sums, tmp_path, name):
    settings = SETTINGS.model_copy(update={"old_policy_every": 4})
    straight, resumed = stop_and_resume(
        make_model, sums, presets.get(name), tmp_path, settings, reference=lambda model: FrozenModel(make_model(seed=1))
    )
    assert same(straight, resumed)


def test_resume_in_bf16_keeps_the_full_precision_masters(make_model, sums, tmp_path):
    straight, resumed = stop_and_resume(lambda: make_model(dtype=torch.bfloat16), sums, presets.get("sft"), tmp_path)
    assert same(straight, resumed)


def test_resume_of_adapters_with_dropout(make_model, sums, tmp_path):
    def make():
        return attach_lora(make_model(), LoraSettings(rank=4, dropout=0.3), seed=1)

    straight, resumed = stop_and_resume(
        make, sums, presets.get("asft"), tmp_path, reference=lambda model: FrozenModel(model, adapters_off=True)
    )
    assert same(straight, resumed)
    assert all("lora_" in name for name in load_file(checkpoint_file(tmp_path)))


def test_resume_at_another_micro_batch_continues_the_same_run(make_model, sums, tmp_path):
    halved = SETTINGS.model_copy(update={"micro_batch": 2})
    straight, resumed = make_model(), make_model()
    train(straight, sums, presets.get("sft"), SETTINGS, seed=3, folder=None)
    train(make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path, on_step=lambda r: r.step == 3)
    outcome = train(resumed, sums, presets.get("sft"), halved, seed=3, folder=tmp_path)
    assert outcome.status == "finished"
    for mine, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", ["target", "seed", "settings", "data"])
def test_a_checkpoint_of_another_run_is_refused(make_model, sums, tmp_path, change):
    train(make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path, on_step=lambda r: True)
    target = presets.get("dft" if change == "target" else "sft")
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-4}) if change == "settings" else SETTINGS
    data = type(sums)(sums.examples[1:], sums.num_rows) if change == "data" else sums
    with pytest.raises(UserError, match="must belong to this run"):
        train(make_model(), data, target, settings, seed=4 if change == "seed" else 3, folder=tmp_path)


def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_over(make_model, sums, tmp_path, caplog):
    straight, again = make_model(), make_model()
    train(straight, sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path)
    path = checkpoint_file(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcome = train(again, sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path)
    assert outcome.step == SETTINGS.steps
    assert same(straight, again)
    assert "starting over" in caplog.text
    assert path.with_name("state.safetensors.damaged").exists()


def test_an_unfinished_write_is_ignored(make_model, sums, tmp_path):
    train(make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path, on_step=lambda r: r.step == 3)
    partial = checkpoint_file(tmp_path).with_name("state.safetensors.part")
    partial.write_bytes(b"half")
    steps: list[int] = []
    train(
        make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path,
        on_step=lambda r: bool(steps.append(r.step)),
    )  # fmt: skip
    assert steps == [4, 5, 6, 7]
    assert not partial.exists()


def test_a_finished_checkpoint_keeps_weights_only(make_model, sums, tmp_path):
    train(make_model(), sums, presets.get("sft"), SETTINGS, seed=3, folder=tmp_path)
    with safe_open(checkpoint_file(tmp_path), framework="pt") as file:
        assert {key.split("/")[0] for key in file.keys()} == {"weight"}  # noqa: SIM118
    assert [path.name for path in Path(tmp_path / "checkpoint").iterdir()] == ["state.safetensors"]
