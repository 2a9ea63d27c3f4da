"""`axolotl.yaml` of an export: what it says, what axolotl's own run of it computes, and where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from imports import ROOT

from qtarget.search.export.axolotl import axolotl_yaml
from qtarget.search.study.config_file import load_study
from qtarget.search.study.winner_file import WinnerFile
from qtarget.spaces import presets
from qtarget.trainers.settings import DataSettings, LoraSettings, ModelSettings, TrainingSettings

AXOLOTL = os.environ.get("AXOLOTL_PYTHON") or (sys.executable if find_spec("axolotl") else None)
"""Python of an environment with axolotl, which asks for other releases of transformers and TRL than this one."""


def winner(model: dict[str, Any], **training: Any) -> WinnerFile:
    return WinnerFile(
        target=presets.get("dft"),
        training=TrainingSettings(**{"steps": 40, "effective_batch": 12, "micro_batch": 6, **training}),
        model=ModelSettings(**model),
        data=DataSettings(path=["a.jsonl", "b.jsonl"], max_length=96),
        seed=2**33 + 5,
    )


def settings(content: WinnerFile, folder: Path) -> dict[str, Any]:
    text = axolotl_yaml(content, folder, "dft")
    assert text is not None and text.startswith("# dft\n")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def test_the_configuration_is_the_training_of_the_search(tmp_path: Path) -> None:
    found = settings(winner({"path": "org/name", "revision": "r1"}, learning_rate=2e-5, clip_norm=None), tmp_path)
    assert (found["base_model"], found["revision_of_model"]) == ("org/name", "r1")
    assert (found["micro_batch_size"], found["gradient_accumulation_steps"]) == (6, 2)
    assert "max_steps" not in found, "winner.yaml says it"
    assert found["learning_rate"] == 2e-5 and "max_grad_norm" not in found and "adapter" not in found
    assert [each["path"] for each in found["datasets"]] == ["a.jsonl", "b.jsonl"]
    assert found["plugins"] == ["target_axolotl.TargetPlugin"] and found["seed"] == 5 and found["bf16"] is False


@pytest.mark.parametrize(
    ("modules", "said"),
    [("all-linear", {"lora_target_linear": True}), (["q_proj"], {"lora_target_modules": ["q_proj"]})],
)
def test_adapters_are_those_of_the_search(tmp_path: Path, modules: Any, said: dict[str, Any]) -> None:
    lora = LoraSettings(rank=4, alpha=8, target_modules=modules, modules_to_save=("lm_head",))
    found = settings(winner({"path": "org/name"}, lora=lora), tmp_path)
    assert found.items() >= {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, **said}.items()
    assert found["lora_modules_to_save"] == ["lm_head"]


@pytest.mark.parametrize(
    "model", [{"path": "m.gguf"}, {"path": "m", "gguf_file": "q.gguf"}, {"path": "m", "add_tokens": ["<x>"]}]
)
def test_what_axolotl_cannot_load_has_no_configuration(tmp_path: Path, model: dict[str, Any]) -> None:
    assert axolotl_yaml(winner(model), tmp_path, "dft") is None


@pytest.mark.slow
@pytest.mark.skipif(AXOLOTL is None, reason="axolotl is not installed; AXOLOTL_PYTHON may name an environment's python")
def test_axolotl_makes_the_first_steps_of_qtarget_train_without_qtarget(tmp_path: Path, monkeypatch) -> None:
    from exported_study import SCORES, export, finished_study, titles, verdict_of  # torch, which the others need not

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    study = finished_study(tmp_path / "study", {"scores": SCORES})
    config = load_study(study)
    verdict_of(config, {titles(config)[2]: 0.9})
    folder = export(study, tmp_path / "out")["directory"]
    command = [sys.executable, str(ROOT / "benchmarks" / "export_parity.py"), folder, "--json", "--trainer", "axolotl"]
    command += ["--python", str(AXOLOTL), "--steps", "3", "--micro-batch", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same_names"] and found["parameters"] > 10
    assert found["worst_parameter"] < 1e-4
    assert max(found["gradient_by_step"]) < 1e-2  # AdamW's first steps blow the smallest gradients up
