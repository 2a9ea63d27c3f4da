"""Weights of the data in whole trainings: multiplicities, under every denominator; CFT's mask is their 0/1 case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qtarget.spaces import presets
from qtarget.spaces.target import TargetSpec
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.sft import train
from qtarget.trainers.settings import DataSettings, TrainingSettings

ROWS = [{"prompt": f"{n}+{n}", "completion": f"{2 * n}ab"} for n in range(1, 9)]
SETTINGS = TrainingSettings(steps=3, effective_batch=8, micro_batch=4, learning_rate=3e-3, checkpoint_every=3)


def load(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], **columns: str) -> Demonstrations:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_demonstrations(DataSettings(path="data.jsonl", **columns), tokenizer, folder)


def trained(model: Any, data: Demonstrations, target: TargetSpec, **changes: int) -> tuple[list[float], Any]:
    losses: list[float] = []

    def note(report: Any) -> bool:
        losses.append(report.loss)
        return False

    train(model, data, target, SETTINGS.model_copy(update=changes), seed=0, folder=None, on_step=note)
    return losses, model.state_dict()


def assert_same(left: tuple[list[float], Any], right: tuple[list[float], Any]) -> None:
    assert left[0] == pytest.approx(right[0], rel=1e-6)
    for name, weight in left[1].items():
        torch.testing.assert_close(right[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("denominator", ["all", "kept", "weights"])
def test_a_row_of_weight_two_is_that_row_twice(
    tmp_path: Path, tokenizer: Any, make_model: Any, denominator: str
) -> None:
    """Both see all of their rows in every step."""
    target = presets.get("profit", tau=0.02).model_copy(update={"denominator": denominator})
    weighted = load(tmp_path, tokenizer, [row | {"w": 1 + n % 2} for n, row in enumerate(ROWS)], weight_column="w")
    twice = load(tmp_path, tokenizer, [*ROWS, *ROWS[1::2]])
    assert_same(
        trained(make_model(), weighted, target),
        trained(make_model(), twice, target, effective_batch=12),
    )


def test_a_common_weight_changes_nothing(tmp_path: Path, tokenizer: Any, make_model: Any) -> None:
    data = load(tmp_path, tokenizer, [row | {"w": 0.5} for row in ROWS], weight_column="w")
    target = presets.get("dft")
    assert_same(trained(make_model(), data, target), trained(make_model(), load(tmp_path, tokenizer, ROWS), target))


def test_the_mask_of_critical_tokens_is_the_case_of_zero_and_one(
    tmp_path: Path, tokenizer: Any, make_model: Any
) -> None:
    lengths = [len(row["completion"]) - 2 for row in ROWS]  # the digits; two letters and the end are not
    marked = [row | {"c": [[0, length]]} for row, length in zip(ROWS, lengths, strict=True)]
    weighted = [row | {"w": [1] * length + [0, 0, 0]} for row, length in zip(ROWS, lengths, strict=True)]
    kept = presets.get("cft").model_copy(update={"denominator": "kept"})
    assert_same(
        trained(make_model(), load(tmp_path, tokenizer, marked, critical_column="c"), kept),
        trained(make_model(), load(tmp_path, tokenizer, weighted, weight_column="w"), presets.get("sft")),
    )
