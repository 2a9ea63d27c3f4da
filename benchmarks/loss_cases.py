"""What the loss benchmarks share: one problem, the parity gate, interleaved timing, peak memory.

Letters: N tokens, H width, V vocabulary, K cached entries.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from qtarget.spaces import TargetSpec, presets
from qtarget.trainers.loss import CachedSlice, HiddenHead, LossSum, dense_target_loss, fused_target_loss

Case = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Problem:
    """Random tokens, a student and a teacher of the same sizes; logits have a standard deviation of about 3 nats."""

    hidden: Tensor  # (N, H)
    weight: Tensor  # (V, H)
    labels: Tensor  # (N,)
    teacher: HiddenHead
    cached: CachedSlice

    @classmethod
    def make(cls, tokens: int, width: int, vocab: int, k: int, *, dtype: torch.dtype, device: str) -> Problem:
        generator = torch.Generator(device).manual_seed(20240917)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator, device=device) * scale).to(dtype)

        hidden, teacher = normal(tokens, width), normal(tokens, width)
        weight = normal(vocab, width, scale=3 / width**0.5)
        labels = torch.randint(vocab, (tokens,), generator=generator, device=device)
        head = HiddenHead(teacher, (weight.float() + normal(vocab, width, scale=0.5 / width**0.5).float()).to(dtype))
        return cls(hidden, weight, labels, head, _cache(head, labels, k))

    def first(self, tokens: int) -> Problem:
        """The same problem with its first tokens only: float64 logits of all may not fit."""
        part = slice(0, tokens)
        teacher, cached = self.teacher.select(part), self.cached.select(part)
        return replace(self, hidden=self.hidden[part], labels=self.labels[part], teacher=teacher, cached=cached)

    def teacher_logits(self) -> Tensor:
        """(N, V), in the dtype of the problem."""
        return self.teacher.hidden @ self.teacher.weight.T

    def leaves(self, *, frozen_head: bool = False) -> tuple[Tensor, Tensor]:
        """Fresh hidden states and head that take gradients."""
        weight = self.weight.detach()
        return self.hidden.detach().requires_grad_(), weight if frozen_head else weight.requires_grad_()

    def ours(self, spec: TargetSpec, *, frozen_head: bool = False, **extra: object) -> tuple[LossSum, Tensor, Tensor]:
        """Forward and backward of the fused loss."""
        hidden, weight = self.leaves(frozen_head=frozen_head)
        loss = fused_target_loss(hidden, weight, self.labels, spec, num_valid=len(self.labels), **extra)
        loss.loss_sum.backward()
        return loss, hidden, weight


def _cache(head: HiddenHead, labels: Tensor, k: int) -> CachedSlice:
    logprobs = (head.hidden @ head.weight.T).float().log_softmax(-1)
    top, ids = logprobs.topk(k, dim=-1)
    tail = logprobs.scatter(1, ids, -torch.inf).logsumexp(1).exp()
    label = logprobs.gather(1, labels[:, None])[:, 0]
    return CachedSlice(ids.to(torch.int32), top, label, tail_mass=tail)


def target_sft_autograd(problem: Problem, teacher_logits: Tensor, eta: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Target-SFT as published, on dense logits: Q = p·δ + (1 − p)·π^(1−η)π_T^η/Z held still, loss −ΣQ·log π."""
    hidden, weight = problem.leaves()
    logprobs = (hidden @ weight.T).float().log_softmax(-1)
    label = logprobs.gather(1, problem.labels[:, None])
    with torch.no_grad():
        p = label.exp()
        teacher = teacher_logits.float().log_softmax(-1)
        residual = ((1 - eta) * logprobs + eta * teacher).softmax(-1)
        target = ((1 - p) * residual).scatter_add(1, problem.labels[:, None], p)
    loss = -(target * logprobs).sum()
    loss.backward()
    return loss, hidden, weight


def gate(
    problem: Problem, names: list[str], *, loss_tolerance: float, cosine: float = 0.9999
) -> list[dict[str, object]]:
    """Loss and gradients of each preset against dense logits in float64; SystemExit when one is off.

    A design with a teacher or reference passes twice: with a live model, and with the cache that is timed.
    """
    rows = []
    for name in names:
        spec = presets.get(name)
        needs = spec.needs & {"teacher", "reference"}
        for source in (problem.teacher, problem.cached) if needs else (None,):
            row = {"preset": name, "source": type(source).__name__} | _errors(
                problem, spec, dict.fromkeys(needs, source)
            )
            rows.append(row)
            if row["loss_relative_error"] > loss_tolerance or min(row["cosine_hidden"], row["cosine_weight"]) < cosine:
                raise SystemExit(f"parity gate failed, nothing is timed: {row}")
    return rows


def _errors(problem: Problem, spec: TargetSpec, sources: dict[str, HiddenHead | CachedSlice]) -> dict[str, float]:
    loss, hidden, weight = problem.ours(spec, **sources)
    hidden64, weight64 = problem.hidden.double().requires_grad_(), problem.weight.double().requires_grad_()
    logits = hidden64 @ weight64.T
    dense = {f"{name}_logits": dense_logits(source, logits, problem.labels) for name, source in sources.items()}
    expected = dense_target_loss(logits, problem.labels, spec, **dense)
    expected.backward()
    return {
        "loss_relative_error": abs(loss.loss_sum.item() / expected.item() - 1),
        "cosine_hidden": _cosine(hidden.grad, hidden64.grad),
        "cosine_weight": _cosine(weight.grad, weight64.grad),
    }


def dense_logits(source: HiddenHead | CachedSlice, student: Tensor, labels: Tensor) -> Tensor:
    """What a source says on the whole vocabulary, (N, V) float64; a cache's tail is shared out as the student's is."""
    if isinstance(source, HiddenHead):
        return source.hidden.double() @ source.weight.double().T
    known = torch.zeros_like(student).scatter(1, labels[:, None], source.label_logprob.double().exp()[:, None])
    known = known.scatter(1, source.ids.long(), source.logprobs.double().exp())
    tail = student.detach().softmax(1).masked_fill(known > 0, 0)
    return (known + tail / tail.sum(1, keepdim=True) * (1 - known.sum(1, keepdim=True))).log()


def _cosine(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None and expected is not None
    return torch.nn.functional.cosine_similarity(found.double().flatten(), expected.flatten(), dim=0).item()


def interleaved(
    cases: dict[str, Case], *, repeats: int, wait: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Milliseconds of each case, `repeats` rounds in which every case runs once."""
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            wait()
            started = time.perf_counter()
            case()
            wait()
            times[name].append(1e3 * (time.perf_counter() - started))
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and minimum of each case, milliseconds."""
    return {name: {"median_ms": statistics.median(row), "min_ms": min(row)} for name, row in times.items()}


def ratio(times: dict[str, list[float]], above: str, below: str) -> dict[str, float]:
    """How long `above` takes in units of `below`: of medians, of minima, and the median over rounds."""
    return {
        "medians": statistics.median(times[above]) / statistics.median(times[below]),
        "minima": min(times[above]) / min(times[below]),
        "rounds": statistics.median(a / b for a, b in zip(times[above], times[below], strict=True)),
    }


def write(report: dict[str, object], path: Path | None) -> None:
    """Print the report as JSON, and keep it when a path is given."""
    report = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), **report}
    text = json.dumps(report, indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
