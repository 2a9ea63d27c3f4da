"""How far each preset is from the published loss: the largest error of its logit gradient, and its source.

    python benchmarks/exactness.py [--markdown]

The oracle is float64 autograd of the loss as its paper writes it (tests/published_losses.py), on ordinary and
adversarial rows and over the whole range of each knob. Float32 errors are those of float32 inputs against the oracle on
the same rounded inputs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from published_losses import bounded, cases, value_and_gradient
from token_rows import TokenRows, edge_rows, random_rows

from qtarget.spaces import presets
from qtarget.trainers.loss.dense import dense_target_loss

WORLDS = [
    random_rows("near", scale=0.3),
    random_rows("spread", scale=2.0),
    random_rows("sharp", scale=12.0),
    random_rows("binary", vocab=2),
    random_rows("large", tokens=64, vocab=1009, scale=3.0),
    edge_rows(),
    edge_rows(vocab=2),
]


def gradient_error(name: str, knobs: dict[str, float], rows: TokenRows) -> float:
    """Largest error of the logit gradient, in the precision of `rows`; relative to the largest entry where that is
    above 1 (anchors at the label alone reach e¹⁰)."""
    rows = bounded(name, rows)
    _, expected = value_and_gradient(name, rows.finite(), **knobs)
    logits = rows.logits.clone().requires_grad_()
    loss = dense_target_loss(logits, rows.labels, presets.get(name, **knobs), **rows.inputs())
    (gradient,) = torch.autograd.grad(loss, logits)
    return float((gradient.double() - expected).abs().max() / expected.abs().max().clamp(min=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    markdown = parser.parse_args().markdown
    sources = {row["name"]: row["source"] for row in presets.table()}
    row = "| {} | {} | {} | {} | {} |" if markdown else "{:<16} {:>6} {:>12} {:>12}  {}"
    print(row.format("preset", "cases", "float64", "float32", "source"))
    if markdown:
        print("|---|---|---|---|---|")
    for name in presets.names():
        knobs = [each for case, each in cases() if case == name]
        errors = [
            max(gradient_error(name, each, rows.to(dtype)) for each in knobs for rows in WORLDS)
            for dtype in (torch.float64, torch.float32)
        ]
        print(row.format(name, len(knobs) * len(WORLDS), *(f"{error:.1e}" for error in errors), sources[name]))


if __name__ == "__main__":
    main()
