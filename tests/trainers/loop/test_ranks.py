"""Two ranks on one machine train the same weights as one, replicated or sharded, and stop together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.data.batches import micro_batch_of_rank
from qtarget.trainers.loop.checkpoint import checkpoint_file, checkpoint_of
from qtarget.trainers.loop.resident import ResidentModel
from qtarget.trainers.loop.sft import train
from qtarget.trainers.loop.shards import load_shards, plain
from qtarget.trainers.settings import LoraSettings, ModelSettings, TrainingSettings

pytestmark = pytest.mark.slow

SETTINGS = TrainingSettings(steps=4, effective_batch=8, micro_batch=8, learning_rate=3e-3, checkpoint_every=100)
LORA = LoraSettings(rank=4, alpha=8.0)
STRATEGIES = ("ddp", "fsdp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, make_model, sums_lines) -> Path:
    """What `ranks_run.py` left: base, teacher and data, and the weights and reports of its fine-tunes."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, seed in (("base", 0), ("teacher", 1)):
        make_model(seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "sums.jsonl").write_text(sums_lines)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).with_name("ranks_run.py")), str(folder), SETTINGS.model_dump_json()]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output
    return folder


def reports(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture
def alone(folder: Path, sums) -> Any:
    """Trains in this process what the ranks have trained together; losses and weights."""
    resident = ResidentModel(ModelSettings(path="base"), folder, reference=True, teacher=ModelSettings(path="teacher"))

    def run(preset: str, lora: LoraSettings | None = None) -> tuple[list[float], dict[str, torch.Tensor]]:
        target, losses = presets.get(preset), []
        model = resident.fresh(lora, seed=5)
        train(
            model,
            sums,
            target,
            SETTINGS.model_copy(update={"lora": lora, "micro_batch": 2}),
            seed=3,
            folder=None,
            pad_token_id=resident.pad_token_id,
            teacher=resident.teacher if "teacher" in target.needs else None,
            reference=resident.reference() if "reference" in target.needs else None,
            on_step=lambda report: bool(losses.append(report.loss)),
        )
        return losses, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("name", "preset", "lora"),
    [
        ("asft", "asft", None),
        ("kd", "kd", None),
        ("psft", "psft", None),
        ("talr", "talr", None),
        ("lora", "asft", LORA),
    ],
)
def test_two_ranks_train_what_one_trains(folder: Path, alone, strategy: str, name: str, preset: str, lora) -> None:
    losses, weights = alone(preset, lora)
    found = load_file(folder / f"{strategy}-{name}.safetensors")
    first, second = reports(folder, f"{strategy}-{name}")
    assert first["losses"] == second["losses"] == pytest.approx(losses, rel=1e-5)
    assert (first["status"], first["step"]) == ("finished", 4)
    assert found.keys() == weights.keys()
    for key, expected in weights.items():
        torch.testing.assert_close(found[key], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_rank_that_stops_stops_all_and_they_go_on_from_the_checkpoint(folder: Path, strategy: str) -> None:
    stopped, resumed = reports(folder, f"{strategy}-stopped"), reports(folder, f"{strategy}-stopped-resumed")
    assert [(report["status"], report["step"]) for report in stopped] == [("stopped", 2)] * 2
    assert [(report["status"], len(report["losses"])) for report in resumed] == [("finished", 2)] * 2
    names = ("psft", "stopped-resumed")
    whole, pieces = (load_file(folder / f"{strategy}-{name}.safetensors") for name in names)
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)


def test_a_checkpoint_of_shards_is_that_of_one_process(folder: Path) -> None:
    replicated = load_file(checkpoint_file(folder / "ddp-asft"))
    shares = checkpoint_of(folder / "fsdp-asft")
    assert shares is not None
    sharded = load_shards(shares, plain)
    assert replicated.keys() == sharded.keys()
    for key, expected in replicated.items():
        torch.testing.assert_close(sharded[key], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["kd", "lora"])
def test_each_rank_answers_alone_with_gathered_weights(folder: Path, name: str) -> None:
    replicated, sharded = reports(folder, f"ddp-{name}"), reports(folder, f"fsdp-{name}")
    assert [report["said"] for report in sharded] == [report["said"] for report in replicated]
    assert [len(report["said"]) for report in sharded] == [1, 2]


def test_a_sharded_model_has_no_copy_of_its_former_weights(folder: Path) -> None:
    assert "strategy: ddp" in (folder / "refused-0.txt").read_text() == (folder / "refused-1.txt").read_text()


@pytest.mark.parametrize(
    ("micro_batch", "effective_batch", "ranks", "expected"), [(8, 8, 1, 8), (8, 8, 2, 4), (4, 12, 2, 3), (1, 6, 3, 1)]
)
def test_ranks_make_equally_many_passes(micro_batch: int, effective_batch: int, ranks: int, expected: int) -> None:
    assert micro_batch_of_rank(micro_batch, effective_batch, ranks) == expected


@pytest.mark.parametrize(("effective_batch", "ranks"), [(9, 2), (2, 4)])
def test_ranks_that_cannot_share_a_batch_are_refused(effective_batch: int, ranks: int) -> None:
    with pytest.raises(UserError, match="multiple of the number of ranks"):
        micro_batch_of_rank(1, effective_batch, ranks)
