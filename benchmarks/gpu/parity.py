"""Part a: the kernel and the torch pass against float64, and every preset through both, value and gradient.

Without a GPU the kernel runs in Triton's interpreter where Triton is installed, else only the torch pass is checked.
Letters: R rows, N tokens, H width, V vocabulary, K cached entries, C entries of a row.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.loss_cases import Problem, dense_logits
from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss import dense_target_loss, fused_target_loss
from qtarget.trainers.loss import tail_softmax as passes
from qtarget.trainers.loss.head import Head

from .made import Sizes, device
from .run import Measurement

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
LOSS_TOLERANCE = {"bf16": 1e-4 if torch.cuda.is_available() else 1e-2, "fp32": 1e-6}
"""Relative; a CPU rounds products of bf16 numbers to bf16."""
SHAPE_TOLERANCE = {"bf16": 2**-8, "fp32": 1e-5}
COSINE = 0.9999
ROWS, ENTRIES = 37, 65
SOURCES = ("teacher", "reference", "previous")


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    kernel = has_kernel()
    for vocab in sizes.vocabularies:
        for name in DTYPES:
            if kernel:
                yield Measurement(f"kernel-{name}-{vocab}", 6, lambda v=vocab, d=name: kernel_errors(v, d))
    for vocab in sizes.vocabularies:
        for name in DTYPES:
            yield Measurement(f"presets-{name}-{vocab}", 9, lambda v=vocab, d=name: all_presets(sizes, v, d, kernel))


def has_kernel() -> bool:
    """Whether the kernel can run here: on a GPU, or in the interpreter that TRITON_INTERPRET asks for at the start."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return importlib.util.find_spec("triton") is not None and (torch.cuda.is_available() or interpreted)


@contextmanager
def through(kernel: bool) -> Iterator[None]:
    """Inside, the pass over the logits is the kernel, or plain torch."""
    original = passes.has_kernel
    passes.has_kernel = lambda device, dtype: kernel and dtype == torch.float32
    try:
        yield
    finally:
        passes.has_kernel = original


def kernel_errors(vocab: int, name: str) -> dict[str, Any]:
    """Kernel and torch pass against float64 on rows of normal, large and equal logits, with and without a cap.

    A row with NaN or inf must come out as not finite, and its neighbours as if it were not there.
    """
    found: dict[str, Any] = {}
    for softcap in (None, 30.0):
        for width in (vocab, vocab - 17):  # rows that do not begin at multiples of 16 bytes, and a torn last block
            found[f"softcap {softcap}, V {width}"] = _one(width, DTYPES[name], softcap)
    worst = {side: max(max(case[side].values()) for case in found.values()) for side in ("kernel", "torch")}
    finite = all(case["not finite where it should be"] for case in found.values())
    return {"worst": worst, "cases": found, "passes": worst["kernel"] <= SHAPE_TOLERANCE[name] and finite}


def _one(vocab: int, dtype: torch.dtype, softcap: float | None) -> dict[str, Any]:
    from qtarget.trainers.loss.row_kernel import tail_softmax_kernel

    place = device()
    generator = torch.Generator(place).manual_seed(vocab)
    linear = torch.randn(ROWS, vocab, generator=generator, device=place) * 6
    linear[1] *= 1e4
    linear[2] = 0.5
    linear[3, vocab // 2], linear[5, 0], linear[7, -1] = torch.nan, torch.inf, torch.nan
    entries = min(ENTRIES, vocab // 3)
    ids = torch.rand(ROWS, vocab, generator=generator, device=place).topk(entries).indices
    ids[0, 3] = ids[0, 0]
    ids[4, :] = vocab - 1
    for row, column in ((3, vocab // 2), (5, 0), (7, vocab - 1)):  # what is broken stays in the tail
        ids[row] = torch.where(ids[row] == column, (ids[row] + 1) % vocab, ids[row])
    head = _head(vocab, dtype, softcap)
    exact = passes.tail_softmax_torch(linear.double(), ids, _head(vocab, torch.float64, softcap))
    sides = {
        "kernel": tail_softmax_kernel(linear.clone(), ids, head),
        "torch": passes.tail_softmax_torch(linear.clone(), ids, head),
    }
    broken = ~torch.isfinite(exact.log_mass)  # a cap makes a number of inf
    errors = {
        side: {
            part: _error(getattr(tail, part)[~broken], getattr(exact, part)[~broken])
            for part in ("shape", "top", "log_mass", "mean", "highest")
        }
        for side, tail in sides.items()
    }
    marked = [bool((~torch.isfinite(tail.log_mass) == broken).all()) for tail in sides.values()]
    expected = 3 if softcap is None else 2
    return {**errors, "not finite where it should be": all(marked) and int(broken.sum()) == expected}


def _head(vocab: int, dtype: torch.dtype, softcap: float | None) -> Head:
    weight = torch.zeros(vocab, 4, dtype=dtype, device=device())
    return Head.build(weight, softcap=softcap, logit_scale=1.0, dtype=dtype)


def _error(found: Tensor, expected: Tensor) -> float:
    """Largest error beside the largest entry of the row, or beside 1."""
    gap = (found.double() - expected).abs()
    scale = expected.abs().clamp(min=1.0)
    return float((gap / scale).max())


def all_presets(sizes: Sizes, vocab: int, name: str, kernel: bool) -> dict[str, Any]:
    """Every preset, live and cached, by the kernel and by torch, against dense logits in float64."""
    tokens, width = sizes.gate
    entries = min(sizes.loss[3], vocab // 4)
    problem = Problem.make(tokens, width, vocab, entries, dtype=DTYPES[name], device=str(device()))
    rows: dict[str, Any] = {}
    for preset in sizes.presets or presets.names():
        spec = presets.get(preset)
        for form, source in (("cached", problem.cached), ("live", problem.teacher)):
            if form == "live" and not spec.needs & {*SOURCES}:
                continue
            rows[f"{preset}, {form}"] = _errors(problem, spec, source, kernel)
    bad = [row for row, each in rows.items() if not _passes(each, name)]
    return {"presets": rows, "off": bad, "passes": not bad}


def _errors(problem: Problem, spec: TargetSpec, source: Any, kernel: bool) -> dict[str, dict[str, float]]:
    columns = _columns(problem, spec)
    given = {each: source for each in SOURCES if each in spec.needs}
    hidden64, weight64 = problem.hidden.double().requires_grad_(), problem.weight.double().requires_grad_()
    logits = hidden64 @ weight64.T
    exact = {f"{each}_logits": dense_logits(source, logits, problem.labels) for each in given}
    expected = dense_target_loss(logits, problem.labels, spec, **exact, **columns)
    expected.backward()
    found = {}
    for side in ("kernel", "torch") if kernel else ("torch",):
        hidden, weight = problem.leaves()
        with through(side == "kernel"):
            loss = fused_target_loss(
                hidden, weight, problem.labels, spec, num_valid=_valid(problem), **given, **columns
            ).loss_sum
            loss.backward()
        found[side] = {
            "loss": abs(float(loss.detach().double() - expected.detach())) / (1.0 + abs(float(expected.detach()))),
            "cosine_hidden": _cosine(hidden.grad, hidden64.grad),
            "cosine_weight": _cosine(weight.grad, weight64.grad),
        }
    return found


def _valid(problem: Problem) -> int:
    return int((problem.labels >= 0).sum())


def _columns(problem: Problem, spec: TargetSpec) -> dict[str, Tensor]:
    tokens, place = len(problem.labels), problem.labels.device
    generator = torch.Generator(place).manual_seed(tokens)
    columns = {
        "old_logprobs": -3 * torch.rand(tokens, generator=generator, device=place),
        "critical": torch.rand(tokens, generator=generator, device=place) < 0.5,
        "sequence_ids": torch.arange(tokens, device=place) // 3,
    }
    return {name: column for name, column in columns.items() if name in spec.needs}


def _cosine(found: Tensor | None, expected: Tensor | None) -> float:
    """1 where both gradients vanish, as those of a design that the data do not move."""
    assert found is not None and expected is not None
    one, other = found.double().flatten(), expected.flatten()
    if float(one.norm()) < 1e-12 and float(other.norm()) < 1e-12:
        return 1.0
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0, eps=1e-30))


def _passes(row: dict[str, dict[str, float]], name: str) -> bool:
    return all(
        side["loss"] <= LOSS_TOLERANCE[name] and min(side["cosine_hidden"], side["cosine_weight"]) >= COSINE
        for side in row.values()
    )
