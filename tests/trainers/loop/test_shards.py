"""Ranks that are killed at any moment go on from a whole checkpoint, on as many ranks as there are then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_ranks import MOMENTS, SETTINGS
from safetensors.torch import load_file

from qtarget.spaces import presets
from qtarget.spaces.errors import UserError
from qtarget.trainers.loop.checkpoint import checkpoint_of, load_weights
from qtarget.trainers.loop.sft import train
from qtarget.trainers.loop.shards import MANIFEST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo on the loopback device, forks"),
]
RESUMES = {"share": 3, "commit": 3, "removal": 5, "step": 5}
"""First step after the restart; a kill before a checkpoint is whole costs the steps since the one before."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tokenizer, make_model, sums_lines) -> tuple[Path, dict[str, Any]]:
    """What `killed_ranks.py` left and said."""
    folder = tmp_path_factory.mktemp("killed")
    make_model(0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "sums.jsonl").write_text(sums_lines)
    here = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"} | here
    script = Path(__file__).parents[2] / "killed_ranks.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "stderr.txt").write_text(done.stderr)
    return folder, json.loads(done.stdout.splitlines()[-1])


def difference(folder: Path, one: str, two: str) -> float:
    """Largest of any weight."""
    left, right = (load_file(folder / f"{name}.safetensors") for name in (one, two))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_ranks_end_with_the_weights_of_undisturbed_ones(runs, moment: str) -> None:
    folder, report = runs
    assert report[f"{moment}-killed"]["exit"][MOMENTS[moment].rank] == -9
    assert report[moment] == {"exit": [0, 0], "first": RESUMES[moment]}
    assert difference(folder, moment, "straight") == 0.0
    assert [path.name for path in (folder / moment / "checkpoint").iterdir()] == ["step-000006"]


def test_killed_replicas_end_with_the_weights_of_undisturbed_ones(runs) -> None:
    folder, report = runs
    assert report["ddp-killed"]["exit"][0] == -9
    assert report["ddp"] == {"exit": [0, 0], "first": 3}
    assert difference(folder, "ddp", "ddp-straight") == 0.0
    assert [path.name for path in (folder / "ddp" / "checkpoint").iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(("name", "left"), [("four", "step-000006"), ("replicated", "state.safetensors")])
def test_a_run_of_two_ranks_goes_on_on_four_or_replicated(runs, name: str, left: str) -> None:
    folder, report = runs
    assert report[name]["first"] == 5
    assert set(report[name]["exit"]) == {0}
    assert difference(folder, name, "straight") < 1e-5
    assert [path.name for path in (folder / name / "checkpoint").iterdir()] == [left]


def test_a_run_of_two_ranks_goes_on_alone(runs, make_model, sums) -> None:
    folder, _ = runs
    model, steps = make_model(seed=8), []
    train(
        model, sums, presets.get("dft"), SETTINGS, seed=3, folder=folder / "alone",
        on_step=lambda report: bool(steps.append(report.step)),
    )  # fmt: skip
    assert steps == [5, 6]
    expected = load_file(folder / "straight.safetensors")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], atol=1e-5, rtol=0)


def test_no_rank_has_written_what_another_holds(runs) -> None:
    folder, _ = runs
    shares = folder / "straight" / "checkpoint" / "step-000006"
    manifest = json.loads((shares / MANIFEST).read_text())
    assert {path.name for path in shares.iterdir()} == {MANIFEST, *manifest["files"]}
    assert len(manifest["files"]) == manifest["ranks"] == 2
    whole = load_file(folder / "straight.safetensors")
    stored = sum(tensor.numel() for name in manifest["files"] for tensor in load_file(shares / name).values())
    assert stored == sum(tensor.numel() for tensor in whole.values()), "weights alone, each entry once"


def test_a_trained_model_is_put_together_from_shares(runs, make_model) -> None:
    folder, _ = runs
    model, path = make_model(seed=8), checkpoint_of(folder / "straight")
    assert path is not None
    load_weights(model, path)
    expected = load_file(folder / "straight.safetensors")
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())


def test_a_disk_that_is_full_for_one_rank_leaves_the_checkpoint_before(runs) -> None:
    folder, report = runs
    assert report["full"] == {"exit": [1, 1], "first": 1}
    assert "OSError: [Errno 27] File too large\non rank 1" in (folder / "stderr.txt").read_text()
    assert [path.name for path in (folder / "full" / "checkpoint").iterdir()] == ["step-000002"]


@pytest.mark.parametrize("fault", ["short", "missing", "garbled", "manifest"])
def test_damaged_shares_are_set_aside_and_the_run_starts_over(runs, make_model, sums, tmp_path, caplog, fault) -> None:
    shutil.copytree(runs[0] / "damaged", tmp_path / "run")
    shares = tmp_path / "run" / "checkpoint" / "step-000004"
    file = sorted(shares.glob("shard-00002-*"))[0]
    if fault == "short":
        os.truncate(file, file.stat().st_size // 2)
    elif fault == "missing":
        file.unlink()
    elif fault == "garbled":  # in the header
        file.write_bytes(file.read_bytes()[:20] + b"\0" * 20 + file.read_bytes()[40:])
    else:
        (shares / MANIFEST).write_text('{"step": "4"')
    steps: list[int] = []
    train(
        make_model(), sums, presets.get("dft"), SETTINGS, seed=3, folder=tmp_path / "run",
        on_step=lambda report: bool(steps.append(report.step)) or report.step == 2,
    )  # fmt: skip
    assert steps == [1, 2]
    assert "starting over" in caplog.text
    assert {path.name for path in shares.parent.iterdir()} == {"state.safetensors", "step-000004.damaged"}


def test_shares_of_a_run_on_other_data_are_refused(runs, make_model, sums) -> None:
    other = type(sums)(sums.examples[1:], sums.num_rows)
    with pytest.raises(UserError, match="must belong to this run"):
        train(make_model(), other, presets.get("dft"), SETTINGS, seed=3, folder=runs[0] / "damaged")
    assert (runs[0] / "damaged" / "checkpoint" / "step-000004").is_dir()
