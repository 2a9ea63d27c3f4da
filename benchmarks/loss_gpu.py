"""The fused loss on one GPU against bare cuBLAS matmuls, dense autograd and the libraries that install.

    python benchmarks/loss_gpu.py [--tokens 8192 --width 2048 --vocab 151936] [--repeats 7] [--json FILE]

All sides run interleaved in one process on the same tensors, after a parity gate against float64 on the first tokens.
Peak memory is what the allocator reached beyond inputs and returned gradients. What does not install or does not run on
this GPU is reported as "not run" with the reason. Liger, TRL, QuACK and cut-cross-entropy are called as published, at
their own default chunk sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from loss_cases import Case, Problem, gate, interleaved, ratio, summary, target_sft_autograd, write
from torch import Tensor

from qtarget.spaces import presets
from qtarget.trainers.loss import fused_target_loss, fused_target_losses

K, GATE_TOKENS = 64, 256
GATED = ["sft", "dft", "label_smoothing", "asft", "kd", "hybrid_kd", "target_sft", "gem", "eaft"]
SFT, DFT, KD, TARGET_SFT = (presets.get(name) for name in ("sft", "dft", "kd", "target_sft"))
DESIGNS = [presets.get("target_sft", eta=eta / 10) for eta in range(1, 8)] + [presets.get("kd")]
SELF_DESIGNS = [presets.get("beyond_log", alpha=alpha / 4) for alpha in range(1, 9)]

GOALS = {
    "G1 soft / three cuBLAS GEMMs <= 1.45": ("ours_soft", "three_mm"),
    "G2 soft / own hard <= 1.05": ("ours_soft", "ours_hard"),
    "G3 Liger FusedLinearJSD (forward KL) / ours cached >= 4": ("liger_jsd", "ours_kd"),
    "G4 Liger chunked JSD / ours exact >= 1.6": ("liger_chunked_jsd", "ours_kd_exact"),
    "G5 dense autograd soft / ours >= 2.2": ("dense_autograd", "ours_soft"),
    "G6 dft on full logits / ours >= 1.8": ("dense_dft", "ours_dft"),
    "G6 TRL dft as installed / ours": ("trl_dft", "ours_dft"),
    "G7 TRL nll as installed / our hard >= 3": ("trl_nll", "ours_hard"),
    "G7 Liger Triton FLCE / our hard >= 3": ("liger_flce", "ours_hard"),
    "G8 QuACK / our hard >= 0.80": ("quack", "ours_hard"),
    "cut-cross-entropy / our hard": ("cut_cross_entropy", "ours_hard"),
    "G9 8 calls / 8 top-64 designs in one, frozen head >= 4": ("eight_calls", "one_call_of_eight"),
    "G9 8 calls / 8 self designs in one, frozen head": ("eight_self_calls", "one_call_of_eight_self"),
}
MEMORY_GOALS = {
    "G5 dense autograd soft / ours, memory >= 12": ("dense_autograd", "ours_soft"),
    "G6 dft on full logits / ours, memory >= 10": ("dense_dft", "ours_dft"),
}


def three_matmuls(problem: Problem) -> Case:
    """Logits, dX and dW of plain cross-entropy, nothing else; the logits in pieces of a quarter."""
    hidden, weight = problem.hidden, problem.weight
    quarter = len(hidden) // 4
    logits = torch.empty(quarter, len(weight), dtype=hidden.dtype, device=hidden.device)
    d_hidden, d_weight = torch.empty_like(hidden[:quarter]), torch.zeros_like(weight, dtype=torch.float32)

    def run() -> None:
        for rows in hidden.split(quarter):
            torch.mm(rows, weight.T, out=logits[: len(rows)])
            torch.mm(logits[: len(rows)], weight, out=d_hidden[: len(rows)])
            torch.addmm(d_weight, logits[: len(rows)].T, rows, out_dtype=torch.float32, out=d_weight)

    return run


def dense_dft(problem: Problem) -> None:
    """DFT as published: cross-entropy on full logits times the detached probability."""
    hidden, weight = problem.leaves()
    logprob = (hidden @ weight.T).float().log_softmax(-1).gather(1, problem.labels[:, None])
    (-logprob.exp().detach() * logprob).sum().backward()


def several(problem: Problem, specs: list, *, shared: bool) -> Case:
    """Designs on a frozen head, one by one or on one forward pass."""

    def run() -> None:
        given = {"teacher": problem.cached, "num_valid": len(problem.labels)}
        hidden, weight = problem.leaves(frozen_head=True)
        if shared:
            losses = fused_target_losses(hidden, weight, problem.labels, specs, **given)
            torch.stack([loss.loss_sum for loss in losses]).sum().backward()
            return
        for spec in specs:
            fused_target_loss(hidden, weight, problem.labels, spec, **given).loss_sum.backward()

    return run


def ours(problem: Problem) -> dict[str, Case]:
    """Everything that needs no other library."""
    teacher = problem.teacher_logits()
    return {
        "three_mm": three_matmuls(problem),
        "ours_hard": lambda: problem.ours(SFT),
        "ours_dft": lambda: problem.ours(DFT),
        "ours_soft": lambda: problem.ours(TARGET_SFT, teacher=problem.cached),
        "ours_kd": lambda: problem.ours(KD, teacher=problem.cached),
        "ours_kd_exact": lambda: problem.ours(KD, teacher=problem.teacher),
        "ours_frozen": lambda: problem.ours(TARGET_SFT, frozen_head=True, teacher=problem.cached),
        "dense_autograd": lambda: target_sft_autograd(problem, teacher),
        "dense_dft": lambda: dense_dft(problem),
        "eight_calls": several(problem, DESIGNS, shared=False),
        "one_call_of_eight": several(problem, DESIGNS, shared=True),
        "eight_self_calls": several(problem, SELF_DESIGNS, shared=False),
        "one_call_of_eight_self": several(problem, SELF_DESIGNS, shared=True),
    }


def liger_jsd(problem: Problem) -> Case:
    from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

    return _with_teacher(problem, LigerFusedLinearJSD(jsd_beta=0.0))


def liger_chunked_jsd(problem: Problem) -> Case:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    return _with_teacher(problem, LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0))


def _with_teacher(problem: Problem, loss: Callable[..., Tensor]) -> Case:
    def run() -> None:
        hidden, weight = problem.leaves()
        loss(hidden, weight, problem.teacher.hidden, problem.teacher.weight, problem.labels).backward()

    return run


def liger_flce(problem: Problem) -> Case:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return _hard(problem, lambda hidden, weight: loss(weight, hidden, problem.labels))


def quack(problem: Problem) -> Case:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return _hard(
        problem, lambda hidden, weight: chunked_linear_cross_entropy(hidden, weight, problem.labels, reduction="sum")
    )


def cut_cross_entropy(problem: Problem) -> Case:
    from cut_cross_entropy import linear_cross_entropy

    return _hard(problem, lambda hidden, weight: linear_cross_entropy(hidden, weight, problem.labels, reduction="sum"))


def trl(problem: Problem, *, weighted: bool) -> Case:
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        logprobs = ChunkedLogProbFunction.apply(
            hidden, weight, None, problem.labels, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("entropy", "is_top1")
        )[0]
        return -(logprobs.exp().detach() * logprobs if weighted else logprobs).sum()

    return _hard(problem, loss)


def _hard(problem: Problem, loss: Callable[[Tensor, Tensor], Tensor]) -> Case:
    def run() -> None:
        loss(*problem.leaves()).backward()

    return run


OTHERS: dict[str, Callable[[Problem], Case]] = {
    "liger_jsd": liger_jsd,
    "liger_chunked_jsd": liger_chunked_jsd,
    "liger_flce": liger_flce,
    "trl_nll": lambda problem: trl(problem, weighted=False),
    "trl_dft": lambda problem: trl(problem, weighted=True),
    "quack": quack,
    "cut_cross_entropy": cut_cross_entropy,
}


def others(problem: Problem) -> tuple[dict[str, Case], dict[str, str]]:
    """The cases that run here, and why the rest does not."""
    cases, reasons = {}, {}
    for name, make in OTHERS.items():
        try:
            case = make(problem)
            case()
            torch.cuda.synchronize()
            cases[name] = case
        except Exception as error:  # whatever a library raises, the report names it and goes on
            reasons[name] = f"not run: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return cases, reasons


def waits(problem: Problem) -> dict[str, bool]:
    """Whether a design makes the host wait for the GPU anywhere between its call and its gradients."""
    found = {}
    for name in GATED:
        spec = presets.get(name)
        given = dict.fromkeys(spec.needs & {"teacher", "reference"}, problem.cached)
        torch.cuda.set_sync_debug_mode("error")
        try:
            problem.ours(spec, **given)
            found[name] = False
        except RuntimeError:
            found[name] = True
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def peak_bytes(case: Case) -> int:
    """What the allocator reached beyond what was there before, gradients included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    case()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        write({"not run": "no CUDA device"}, arguments.json)
        return
    sizes = (arguments.tokens, arguments.width, arguments.vocab)
    problem = Problem.make(*sizes, K, dtype=torch.bfloat16, device="cuda")
    parity = gate(problem.first(GATE_TOKENS), GATED, loss_tolerance=1e-4)
    foreign, reasons = others(problem)
    cases = ours(problem) | foreign
    times = interleaved(cases, repeats=arguments.repeats, wait=torch.cuda.synchronize)
    item = problem.hidden.element_size()
    gradients = item * (problem.hidden.numel() + problem.weight.numel())
    memory = {name: peak_bytes(case) - gradients for name, case in cases.items()}
    write(
        {
            "device": torch.cuda.get_device_name(),
            "shape": dict(zip("NHV", sizes, strict=True)) | {"K": K, "dtype": "bfloat16"},
            "parity": parity,
            "host_waits": waits(problem),
            "times": summary(times),
            "peak_extra_bytes": memory,
            "not_run": reasons,
            "goals": {
                goal: ratio(times, *pair) if set(pair) <= times.keys() else reasons.get(pair[0], "not run")
                for goal, pair in GOALS.items()
            }
            | {goal: memory[above] / memory[below] for goal, (above, below) in MEMORY_GOALS.items()},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
