"""Every preset is the loss its authors train: value and gradient against autograd of the published form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from published_losses import ANOTHER_VALUE, KNOBS, LOSSES, bounded, cases, value_and_gradient
from token_rows import TokenRows, edge_rows, noting, random_rows

from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss.dense import dense_target_loss

CASES = [pytest.param(name, knobs, id="-".join([name, *map(str, knobs.values())])) for name, knobs in cases()]
WORLDS = {
    "near": random_rows("near", scale=0.3),
    "spread": random_rows("spread", scale=2.0),
    "sharp": random_rows("sharp", scale=12.0),
    "binary": random_rows("binary", vocab=2),
    "wide": random_rows("wide", tokens=12, vocab=211, scale=3.0),
    "edges": edge_rows(),
    "binary edges": edge_rows(vocab=2),
}
VALUED = ("spread", "sharp", "binary")
"""Worlds in which every published value is finite."""


def ours(spec: TargetSpec, rows: TokenRows, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    logits = rows.logits.clone().requires_grad_()
    loss = dense_target_loss(logits, rows.labels, spec, **rows.inputs(), **options)
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def test_every_preset_has_an_oracle() -> None:
    assert set(LOSSES) == set(presets.names())
    knobs = {row["name"]: set(row["knobs"]) for row in presets.table() if row["knobs"]}
    assert {name: set(values) for name, values in KNOBS.items()} == knobs


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_value_and_gradient_are_the_published_ones_in_float64(name: str, knobs: dict[str, float]) -> None:
    for world, everything in WORLDS.items():
        rows = bounded(name, everything)
        expected, expected_gradient = value_and_gradient(name, rows.finite(), **knobs)
        value, gradient = ours(presets.get(name, **knobs), rows)
        with noting(world):
            torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
            if world in VALUED and name not in ANOTHER_VALUE:
                torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_gradient_is_the_published_one_in_float32(name: str, knobs: dict[str, float]) -> None:
    for world in ("spread", "sharp", "edges", "binary edges"):
        rows = bounded(name, WORLDS[world]).to(torch.float32)
        _, expected = value_and_gradient(name, rows.finite(), **knobs)
        _, gradient = ours(presets.get(name, **knobs), rows)
        assert gradient.dtype == torch.float32
        size = max(1.0, float(expected.abs().max()))  # anchors at the label alone reach e¹⁰
        with noting(world):
            torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_half_precision_is_computed_in_float32(name: str, knobs: dict[str, float]) -> None:
    rows = WORLDS["spread"].to(torch.bfloat16)
    _, expected = ours(presets.get(name, **knobs), rows.to(torch.float32))
    value, gradient = ours(presets.get(name, **knobs), rows)
    assert value.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected.to(torch.bfloat16), rtol=0, atol=0)
