"""The loss layers of other libraries, called as published, at their own chunk sizes; and two formulas written out.

What does not install or does not run here is named with the reason. Letters: N tokens, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from benchmarks.loss_cases import Case, Problem

from .made import wait

ON_A_GPU = {"liger_flce", "liger_dft", "liger_jsd", "liger_chunked_jsd", "quack", "cut_cross_entropy"}
"""Made of kernels, or of code that is compiled first."""
TRL_CHUNK = 256
"""Tokens of a chunk of TRL's `chunked_nll`."""


def hard(problem: Problem, loss: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """Forward and backward of a loss of hidden states and head."""

    def run() -> None:
        loss(*problem.leaves()).backward()

    return run


def full_cross_entropy(problem: Problem) -> Case:
    """`F.cross_entropy` on full logits, as most trainers call it: in float32."""
    return hard(problem, lambda hidden, weight: _on_logits(hidden, weight, problem.labels))


def _on_logits(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")


def trl_dft_formula(problem: Problem) -> Case:
    """DFT as TRL writes it: cross-entropy on full logits times the detached probability of the label."""

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        logprobs = (hidden @ weight.T).float().log_softmax(-1).gather(1, problem.labels[:, None])
        return -(logprobs.exp().detach() * logprobs).sum()

    return hard(problem, loss)


def trl_chunked_formula(problem: Problem) -> Case:
    """TRL's `chunked_nll` as a formula: chunks of 256 tokens, checkpointed, products in the dtype of the model."""

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        pieces = zip(hidden.split(TRL_CHUNK), problem.labels.split(TRL_CHUNK), strict=True)
        parts = [checkpoint(_on_logits, rows, weight, labels, use_reentrant=False) for rows, labels in pieces]
        return torch.stack(parts).sum()

    return hard(problem, loss)


def torch_linear_cross_entropy(problem: Problem) -> Case:
    function = torch.nn.functional.linear_cross_entropy
    options = torch.nn.LinearCrossEntropyOptions()
    return hard(
        problem, lambda hidden, weight: function(hidden, weight, problem.labels, reduction="sum", options=options)
    )


def liger_jsd(problem: Problem) -> Case:
    from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

    return _with_teacher(problem, LigerFusedLinearJSD(jsd_beta=0.0))


def liger_chunked_jsd(problem: Problem) -> Case:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    return _with_teacher(problem, LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0))


def _with_teacher(problem: Problem, loss: Callable[..., Tensor]) -> Case:
    def run() -> None:
        hidden, weight = problem.leaves()
        found = loss(hidden, weight, problem.teacher.hidden, problem.teacher.weight, problem.labels)
        (found[0] if isinstance(found, tuple) else found).backward()

    return run


def liger_flce(problem: Problem) -> Case:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return hard(problem, lambda hidden, weight: loss(weight, hidden, problem.labels))


def liger_dft(problem: Problem) -> Case:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum", use_token_scaling=True)
    return hard(problem, lambda hidden, weight: loss(weight, hidden, problem.labels))


def quack(problem: Problem) -> Case:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return hard(
        problem, lambda hidden, weight: chunked_linear_cross_entropy(hidden, weight, problem.labels, reduction="sum")
    )


def cut_cross_entropy(problem: Problem) -> Case:
    from cut_cross_entropy import linear_cross_entropy

    return hard(problem, lambda hidden, weight: linear_cross_entropy(hidden, weight, problem.labels, reduction="sum"))


def trl(problem: Problem, *, weighted: bool) -> Case:
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        logprobs = ChunkedLogProbFunction.apply(
            hidden, weight, None, problem.labels, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("entropy", "is_top1")
        )[0]
        return -(logprobs.exp().detach() * logprobs if weighted else logprobs).sum()

    return hard(problem, loss)


PEERS: dict[str, Callable[[Problem], Case]] = {
    "full_cross_entropy": full_cross_entropy,
    "trl_dft_formula": trl_dft_formula,
    "trl_chunked_formula": trl_chunked_formula,
    "torch_linear_cross_entropy": torch_linear_cross_entropy,
    "liger_flce": liger_flce,
    "liger_dft": liger_dft,
    "liger_jsd": liger_jsd,
    "liger_chunked_jsd": liger_chunked_jsd,
    "trl_nll": lambda problem: trl(problem, weighted=False),
    "trl_dft": lambda problem: trl(problem, weighted=True),
    "quack": quack,
    "cut_cross_entropy": cut_cross_entropy,
}


def peers(problem: Problem, names: tuple[str, ...]) -> tuple[dict[str, Case], dict[str, str]]:
    """Those of `names` that run here, after a first call of each, and why the rest does not."""
    cases: dict[str, Case] = {}
    reasons: dict[str, str] = {}
    for name in names:
        if name in ON_A_GPU and not torch.cuda.is_available():
            reasons[name] = "needs a GPU"
            continue
        try:
            case = PEERS[name](problem)
            case()
            wait()
            cases[name] = case
        except Exception as error:  # whatever a library raises, the report names it and goes on
            text = str(error).strip().partition("\n")[0][:200]
            reasons[name] = f"{type(error).__name__}: {text}"
    return cases, reasons
