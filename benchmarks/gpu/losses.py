"""Part b: the loss layer against bare matrix products, dense autograd and other libraries: ratios and peak memory.

All sides of a measurement run in turns, on the same tensors, after a gate: loss and gradients of ours against float64
on the first tokens. Memory is what the allocator reached beyond inputs and returned gradients.
Letters: N tokens, H width, V vocabulary, K cached entries, D designs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.loss_cases import Case, Problem, gate, interleaved, ratio, summary, target_sft_autograd
from qtarget.spaces import presets
from qtarget.trainers.loss import fused_target_loss, fused_target_losses

from .made import Sizes, device, peak, wait
from .peers import peers
from .run import Measurement

GATED = ["sft", "dft", "label_smoothing", "asft", "kd", "hybrid_kd", "target_sft", "gem", "eaft"]
GATE_TOKENS = 128
SFT, DFT, KD, TARGET_SFT = (presets.get(name) for name in ("sft", "dft", "kd", "target_sft"))
DESIGNS = [presets.get("target_sft", eta=eta / 10) for eta in range(1, 8)] + [presets.get("kd")]
SELF_DESIGNS = [presets.get("beyond_log", alpha=alpha / 4) for alpha in range(1, 9)]

TIMES = {
    "G1 soft / three matrix products": ("ours_soft", "three_mm", "<=", 1.45),
    "G2 soft / own hard": ("ours_soft", "ours_hard", "<=", 1.05),
    "G3 Liger FusedLinearJSD / ours, cached": ("liger_jsd", "ours_kd", ">=", 4.0),
    "G4 Liger chunked JSD / ours, exact": ("liger_chunked_jsd", "ours_kd_exact", ">=", 1.6),
    "G5 dense autograd, soft / ours": ("dense_autograd", "ours_soft", ">=", 2.2),
    "G6 DFT on full logits (TRL's formula) / ours": ("trl_dft_formula", "ours_dft", ">=", 1.8),
    "G6 TRL's DFT kernel / ours": ("trl_dft", "ours_dft", None, None),
    "G6 Liger's token scaling / ours": ("liger_dft", "ours_dft", None, None),
    "G7 TRL chunked_nll, its formula / our hard": ("trl_chunked_formula", "ours_hard", ">=", 3.0),
    "G7 TRL's log-prob kernel / our hard": ("trl_nll", "ours_hard", None, None),
    "G7 Liger Triton FLCE / our hard": ("liger_flce", "ours_hard", ">=", 3.0),
    "G8 QuACK / our hard": ("quack", "ours_hard", ">=", 0.80),
    "F.cross_entropy on full logits / our hard": ("full_cross_entropy", "ours_hard", None, None),
    "torch's linear_cross_entropy / our hard": ("torch_linear_cross_entropy", "ours_hard", None, None),
    "cut-cross-entropy / our hard": ("cut_cross_entropy", "ours_hard", None, None),
    "our hard / three matrix products": ("ours_hard", "three_mm", None, None),
    "frozen head / three matrix products": ("ours_frozen", "three_mm", None, None),
    "G9 8 calls / 8 top-64 designs in one, frozen head": ("eight_calls", "one_call_of_eight", ">=", 4.0),
    "G9 8 calls / 8 self designs in one, frozen head": ("eight_self_calls", "one_call_of_eight_self", None, None),
}
MEMORY = {
    "G5 dense autograd, soft / ours, memory": ("dense_autograd", "ours_soft", ">=", 12.0),
    "G6 DFT on full logits (TRL's formula) / ours, memory": ("trl_dft_formula", "ours_dft", ">=", 10.0),
    "F.cross_entropy on full logits / our hard, memory": ("full_cross_entropy", "ours_hard", None, None),
    "Liger Triton FLCE / our hard, memory": ("liger_flce", "ours_hard", None, None),
}
SOFT_PEERS = ("liger_jsd",)
HARD_PEERS = (
    "full_cross_entropy", "liger_flce", "trl_chunked_formula", "trl_nll", "torch_linear_cross_entropy", "quack",
    "cut_cross_entropy",
)  # fmt: skip
DFT_PEERS = ("trl_dft_formula", "liger_dft", "trl_dft")


def measurements(sizes: Sizes, folder: Path) -> Iterator[Measurement]:
    @cache
    def problem() -> Problem:
        return make(sizes)

    yield Measurement("gate", 10, lambda: gated(problem()))

    def against(make: Callable[[Problem], dict[str, Case]], names: tuple[str, ...]) -> Callable[[], dict[str, Any]]:
        return lambda: versus(problem(), sizes, make(problem()), names)

    yield Measurement("soft", 22, against(soft, SOFT_PEERS))
    yield Measurement("hard", 18, against(plain, HARD_PEERS))
    yield Measurement("dft", 12, against(dft, DFT_PEERS))
    yield Measurement("designs", 14, against(designs, ()))
    yield Measurement("exact", 20, against(exact, ("liger_chunked_jsd",)))  # last: it compiles first
    if torch.cuda.is_available():
        yield Measurement("waits", 6, lambda: waits(problem()))


def make(sizes: Sizes) -> Problem:
    tokens, width, vocab, entries = sizes.loss
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return Problem.make(tokens, width, vocab, entries, dtype=dtype, device=str(device()))


def gated(problem: Problem) -> dict[str, Any]:
    """Loss and gradients of what is timed below, against float64; the measurement fails where one is off."""
    part = problem.first(min(GATE_TOKENS, len(problem.labels)))
    try:
        return {"presets": gate(part, GATED, loss_tolerance=1e-4)}
    except SystemExit as error:
        raise RuntimeError(str(error)) from error


def soft(problem: Problem) -> dict[str, Case]:
    teacher = problem.teacher_logits()
    return {
        "three_mm": three_products(problem),
        "ours_hard": lambda: problem.ours(SFT),
        "ours_soft": lambda: problem.ours(TARGET_SFT, teacher=problem.cached),
        "ours_kd": lambda: problem.ours(KD, teacher=problem.cached),
        "ours_frozen": lambda: problem.ours(TARGET_SFT, frozen_head=True, teacher=problem.cached),
        "dense_autograd": lambda: target_sft_autograd(problem, teacher),
    }


def plain(problem: Problem) -> dict[str, Case]:
    return {"three_mm": three_products(problem), "ours_hard": lambda: problem.ours(SFT)}


def exact(problem: Problem) -> dict[str, Case]:
    """The teacher as hidden states and head: both sides pay for its product."""
    return {"ours_kd_exact": lambda: problem.ours(KD, teacher=problem.teacher)}


def dft(problem: Problem) -> dict[str, Case]:
    return {"ours_dft": lambda: problem.ours(DFT)}


def designs(problem: Problem) -> dict[str, Case]:
    """Eight designs on a frozen head, one by one and on one forward pass."""
    return {
        "eight_calls": several(problem, DESIGNS, shared=False),
        "one_call_of_eight": several(problem, DESIGNS, shared=True),
        "eight_self_calls": several(problem, SELF_DESIGNS, shared=False),
        "one_call_of_eight_self": several(problem, SELF_DESIGNS, shared=True),
    }


def three_products(problem: Problem) -> Case:
    """Logits, dX and dW of plain cross-entropy, nothing else; the logits in pieces of a quarter."""
    hidden, weight = problem.hidden, problem.weight
    quarter = len(hidden) // 4
    logits = torch.empty(quarter, len(weight), dtype=hidden.dtype, device=hidden.device)
    d_hidden, d_weight = torch.empty_like(hidden[:quarter]), torch.zeros_like(weight, dtype=torch.float32)
    wide = {"out_dtype": torch.float32} if hidden.is_cuda else {}

    def run() -> None:
        for rows in hidden.split(quarter):
            torch.mm(rows, weight.T, out=logits[: len(rows)])
            torch.mm(logits[: len(rows)], weight, out=d_hidden[: len(rows)])
            torch.addmm(d_weight, logits[: len(rows)].T, rows, out=d_weight, **wide)

    return run


def several(problem: Problem, specs: list[Any], *, shared: bool) -> Case:
    given = {"teacher": problem.cached, "num_valid": len(problem.labels)}

    def run() -> None:
        hidden, weight = problem.leaves(frozen_head=True)
        if shared:
            losses = fused_target_losses(hidden, weight, problem.labels, specs, **given)
            torch.stack([loss.loss_sum for loss in losses]).sum().backward()
            return
        for spec in specs:
            fused_target_loss(hidden, weight, problem.labels, spec, **given).loss_sum.backward()

    return run


def versus(problem: Problem, sizes: Sizes, ours: dict[str, Case], names: tuple[str, ...]) -> dict[str, Any]:
    """Times, peak memory and ratios of our cases and of the peers that run here."""
    others, reasons = peers(problem, names)
    cases = ours | others
    times = interleaved(cases, repeats=sizes.repeats, wait=wait)
    gradients = problem.hidden.nbytes + problem.weight.nbytes
    bytes_of = {name: peak_bytes(case, gradients) for name, case in cases.items()}
    ratios = {
        goal: {**ratio(times, above, below), "rule": rule, "limit": limit}
        for goal, (above, below, rule, limit) in TIMES.items()
        if {above, below} <= times.keys()
    }
    ratios |= {
        goal: {"medians": high / low, "rule": rule, "limit": limit}
        for goal, (above, below, rule, limit) in MEMORY.items()
        if (high := bytes_of.get(above)) and (low := bytes_of.get(below))
    }
    shape = dict(zip("NHVK", sizes.loss, strict=True)) | {"dtype": str(problem.hidden.dtype)}
    return {"shape": shape, "times": summary(times), "peak_extra_bytes": bytes_of, "ratios": ratios, "not_run": reasons}


def peak_bytes(case: Case, gradients: int) -> int | None:
    with peak() as found:
        case()
    return None if found["bytes"] is None else found["bytes"] - gradients


def waits(problem: Problem) -> dict[str, Any]:
    """Whether a design makes the host wait for the GPU anywhere between its call and its gradients."""
    found = {}
    for name in GATED:
        spec = presets.get(name)
        given = dict.fromkeys(spec.needs & {"teacher", "reference"}, problem.cached)
        torch.cuda.set_sync_debug_mode("error")
        try:
            problem.ours(spec, **given)
            found[name] = False
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            found[name] = True
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"waits": found}
