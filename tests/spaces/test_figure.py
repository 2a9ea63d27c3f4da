"""The picture of the objectives, and the numbers behind it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from qtarget.spaces import presets
from qtarget.spaces.curves import FALL, TOKENS, TYPICAL_NLL, curves
from qtarget.spaces.errors import UserError
from qtarget.spaces.figure import draw

TOP = (1 - FALL) / (1 - FALL ** (TOKENS - 1))
"""Share of the most probable other token in what the label leaves."""


@pytest.mark.parametrize(
    ("name", "knobs", "push"),
    [
        ("sft", {}, lambda p: 1 - p),
        ("dft", {}, lambda p: p * (1 - p)),
        ("kd", {}, lambda p: 0.75 - p),
        ("asft", {"lam": 0.2}, lambda p: p * (1 - p) + 0.2 * (0.25 - p)),
        ("psft", {"eps": 0.5}, lambda p: torch.where(p / 0.5 < 1.5, p / 0.5, 0) * (1 - p)),
        ("iw_sft", {"cap": 2}, lambda p: (p / 0.25).clamp(max=2) * (1 - p)),
        ("luffy", {"lam": 0.2}, lambda p: 0.2 * p / (p + 0.2) ** 2 * (1 - p)),
        ("asft_k3", {"lam": 0.2}, lambda p: (p + 0.2 * (0.25 / p - 1) * (p > 0.25 / 22026.465)) * (1 - p)),
        ("infosft", {"P": 0.9}, lambda p: p * (1 - torch.logit(p) / math.log(9)).clamp(min=0) * (1 - p)),
        ("trimsft", {}, lambda p: torch.exp(-((torch.log(p / (1 - p) / TOP) - 1.5) ** 2) / 1.28) * (1 - p)),
        ("lp_sft", {}, lambda p: 1 - p),
        ("talr", {}, lambda p: (p ** (1 / TYPICAL_NLL)).clamp(min=0.01) * (1 - p)),
    ],
)
def test_the_push_on_the_label_is_the_published_gradient(name: str, knobs: dict[str, float], push: object) -> None:
    found = curves(presets.get(name, **knobs))
    assert callable(push)
    torch.testing.assert_close(found.push, push(found.p), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.label_target, found.p + found.push)


@pytest.mark.parametrize("name", presets.names())
def test_curves_are_finite(name: str) -> None:
    found = curves(presets.get(name))
    assert found.gamma.isfinite().all() and found.push.isfinite().all() and found.gamma.shape == found.p.shape


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.slow
def test_the_figure_is_written(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"objectives.{suffix}"
    draw(file, {"sft": presets.get("sft"), "a winner": presets.get("target_sft", eta=0.3)})
    assert file.stat().st_size > 5000


@pytest.mark.slow
def test_every_preset_is_named_in_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    draw(tmp_path / "all.svg")
    text = (tmp_path / "all.svg").read_text()
    assert all(f">{name}<" in text for name in presets.names())


def test_another_file_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.png, \.svg, \.pdf, but got 'objectives\.doc'; rename it"):
        draw(tmp_path / "objectives.doc")
