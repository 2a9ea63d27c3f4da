"""The fused loss on CPU cores: time and peak memory against bare matmuls, cross-entropy and dense autograd.

    python benchmarks/loss_cpu.py [--repeats 9] [--threads 2] [--json FILE]

Both sides run interleaved in one process on the same tensors, after a parity gate against float64. Peak memory is the
rise of the resident set over what is there before the call, with the gradients that the call returns taken off.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from pathlib import Path

import torch
from loss_cases import Case, Problem, gate, interleaved, ratio, summary, target_sft_autograd, write
from torch.nn.functional import cross_entropy

from qtarget.spaces import presets
from qtarget.trainers.loss import fused_target_loss, fused_target_losses
from qtarget.trainers.loss.head import WORKSPACE

TOKENS, WIDTH, VOCAB, K, GATE_TOKENS = 512, 256, 32768, 64, 64
GATED = ["sft", "dft", "label_smoothing", "sft_kl", "asft", "kd", "hybrid_kd", "target_sft", "gem", "eaft"]
TARGET_SFT = presets.get("target_sft", eta=0.5)
DESIGNS = [presets.get("target_sft", eta=eta / 10) for eta in range(1, 5)] + [
    presets.get("hybrid_kd", lam=0.3),
    presets.get("kd"),
    presets.get("dft"),
    presets.get("label_smoothing", lam=0.1),
]


def three_matmuls(problem: Problem) -> Case:
    """Logits, dX and dW of plain cross-entropy, nothing else."""
    logits = torch.empty(TOKENS, VOCAB)
    d_hidden, d_weight = torch.empty_like(problem.hidden), torch.empty_like(problem.weight)

    def run() -> None:
        torch.mm(problem.hidden, problem.weight.T, out=logits)
        torch.mm(logits, problem.weight, out=d_hidden)
        torch.mm(logits.T, problem.hidden, out=d_weight)

    return run


def materialised(problem: Problem) -> None:
    """`F.cross_entropy` on (N, V) logits."""
    hidden, weight = problem.leaves()
    cross_entropy(hidden @ weight.T, problem.labels, reduction="sum").backward()


def eight_calls(problem: Problem) -> None:
    for spec in DESIGNS:
        hidden, weight = problem.leaves(frozen_head=True)
        fused_target_loss(hidden, weight, problem.labels, spec, teacher=problem.cached).loss_sum.backward()


def one_call(problem: Problem) -> None:
    hidden, weight = problem.leaves(frozen_head=True)
    losses = fused_target_losses(hidden, weight, problem.labels, DESIGNS, teacher=problem.cached)
    torch.stack([loss.loss_sum for loss in losses]).sum().backward()


def peak_bytes(case: Case) -> int:
    """How far the resident set rises during `case`, which finds no memory that this process kept from before."""
    case()
    WORKSPACE.release()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    case()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problem = Problem.make(TOKENS, WIDTH, VOCAB, K, dtype=torch.float32, device="cpu")
    parity = gate(problem.first(GATE_TOKENS), GATED, loss_tolerance=1e-6)
    teacher = problem.teacher_logits()
    cases: dict[str, Case] = {
        "three_mm": three_matmuls(problem),
        "ours_hard": lambda: problem.ours(presets.get("sft")),
        "ours_soft": lambda: problem.ours(TARGET_SFT, teacher=problem.cached),
        "cross_entropy": lambda: materialised(problem),
        "dense_autograd": lambda: target_sft_autograd(problem, teacher),
        "dense_autograd_live": lambda: target_sft_autograd(problem, problem.teacher_logits()),
        "ours_dense": lambda: problem.ours(presets.get("kd"), teacher=teacher),
        "ours_exact": lambda: problem.ours(TARGET_SFT, teacher=problem.teacher),
        "eight_calls": lambda: eight_calls(problem),
        "one_call_of_eight": lambda: one_call(problem),
    }
    times = interleaved(cases, repeats=arguments.repeats)
    gradients = 4 * (TOKENS + VOCAB) * WIDTH
    memory = {
        name: peak_bytes(cases[name]) - gradients
        for name in ("ours_hard", "ours_soft", "cross_entropy", "dense_autograd")
    }
    write(
        {
            "shape": {"N": TOKENS, "H": WIDTH, "V": VOCAB, "K": K, "dtype": "float32", "threads": arguments.threads},
            "load": os.getloadavg()[0],
            "parity": parity,
            "times": summary(times),
            "peak_extra_bytes": memory,
            "goals": {
                "dense autograd, live teacher / ours soft, time >= 2.5": ratio(
                    times, "dense_autograd_live", "ours_soft"
                ),
                "the same, its teacher's logits for free": ratio(times, "dense_autograd", "ours_soft"),
                "dense autograd / ours exact, both with a live teacher": ratio(
                    times, "dense_autograd_live", "ours_exact"
                ),
                "dense autograd / ours soft, memory >= 6": memory["dense_autograd"] / memory["ours_soft"],
                "ours soft / ours hard <= 1.05": ratio(times, "ours_soft", "ours_hard"),
                "ours soft / three mm <= 1.25": ratio(times, "ours_soft", "three_mm"),
                "ours, a (tokens, vocab) teacher given / three mm <= 2.0": ratio(times, "ours_dense", "three_mm"),
                "ours hard / F.cross_entropy <= 0.75": ratio(times, "ours_hard", "cross_entropy"),
                "8 calls / 8 designs in one call >= 3.5": ratio(times, "eight_calls", "one_call_of_eight"),
            },
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
