"""What a cache loses: the cached teacher against the exact one, seen from a given student.

Letters: T tokens, V vocabulary, H width, r the exact and q the cached teacher (kept entries as stored, tail of the
student's shape), m the kept mass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...spaces.numerics import log_softmax
from ...spaces.target import TargetSpec
from ..data.batches import Batch
from ..loss import fused_target_loss
from ..loss.residual_source import CachedSlice, HiddenHead, ResidualSource, top_entries, widen
from ..models.head import OutputHead, evaluating, hidden_states, output_head
from .cache import TeacherCache
from .sources import FrozenModel

DISTILLATION = TargetSpec.model_validate({"gamma": {"kind": "constant", "value": 0.0}, "residual": {"kind": "teacher"}})
"""All mass follows the teacher: any mixture with labels is closer to exact."""
COSINE_ROWS = 4096
"""Rows of a gradient that are multiplied in float64 at once."""


@dataclass(frozen=True)
class CacheBias:
    """Means over some batches."""

    kl: float
    """KL(r || q), nats a token."""
    student_kl: float
    """KL(r || student), nats a token: what distillation could move, and the measure for `kl`."""
    cosine: float
    """Between the gradients of distillation towards r and q, at the hidden states or at the head: the smaller one."""
    worst_cosine: float
    """Of one batch."""
    zero_fill_cosine: float
    """The same for the kept entries without a tail (logit gradient m*pi - q), where KL(r || q) is infinite."""
    zero_fill_worst_cosine: float
    tokens: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """One batch as student and teacher see it."""

    labels: Tensor  # (T,)
    hidden: Tensor  # (T, H) the student's
    head: OutputHead
    exact: HiddenHead

    @torch.no_grad()
    def divergences(self, cached: CachedSlice) -> Tensor:
        """Sums over the tokens of KL(r || q) and KL(r || student), (2,) nats."""
        teacher = OutputHead(self.exact.weight, self.exact.bias, self.exact.softcap, self.exact.logit_scale)
        truth = log_softmax(teacher.logits(self.exact.hidden).float())
        student = log_softmax(self.head.logits(self.hidden)[:, : truth.shape[1]].float())
        found = widen(top_entries(cached, self.labels, torch.float32), student)
        return torch.stack([(truth.exp() * (truth - other)).sum(dtype=torch.float64) for other in (found, student)])

    def gradients(self, teacher: ResidualSource) -> list[Tensor]:
        """Of distillation towards `teacher`: at the hidden states (T, H) and the head (V, H)."""
        head = self.head
        hidden, weight = (tensor.detach().clone().requires_grad_() for tensor in (self.hidden, head.weight))
        bias = None if head.bias is None else head.bias.detach()
        options = {"bias": bias, "softcap": head.softcap, "logit_scale": head.logit_scale}
        options["real_vocab"] = min(len(head.weight), len(self.exact.weight))
        loss = fused_target_loss(hidden, weight, self.labels, DISTILLATION, teacher=teacher, **options)  # type: ignore[arg-type]
        return list(torch.autograd.grad(loss.loss_sum, [hidden, weight]))

    def zero_fill_gradients(self, cached: CachedSlice) -> list[Tensor]:
        """The same for the loss -sum of q log pi over the kept entries."""
        hidden, weight = (tensor.detach().clone().requires_grad_() for tensor in (self.hidden, self.head.weight))
        head = OutputHead(weight, self.head.bias, self.head.softcap, self.head.logit_scale)
        kept = cached.logprobs.exp().where(cached.ids >= 0, 0.0)
        logprobs = head.logits(hidden).float().log_softmax(-1).gather(1, cached.ids.clamp(min=0))
        return list(torch.autograd.grad(-(kept * logprobs).sum(), [hidden, weight]))


def cache_bias(
    student: nn.Module, teacher: FrozenModel, caches: Mapping[str, TeacherCache], batches: Iterable[Batch]
) -> dict[str, CacheBias]:
    """Bias of each cache of one teacher, for this student, over some batches of the cached data.

    The cosines are meaningless for a student that equals the teacher: then there is no gradient.
    """
    divergences = {name: torch.zeros(2, dtype=torch.float64) for name in caches}
    ours: dict[str, list[float]] = {name: [] for name in caches}
    zero: dict[str, list[float]] = {name: [] for name in caches}
    tokens = 0
    for batch in batches:
        rows = _rows(student, teacher, batch)
        tokens += len(rows.labels)
        truth = rows.gradients(rows.exact)
        for name, cache in caches.items():
            cached = cache.rows(batch.indices.tolist()).to(rows.labels.device)
            assert isinstance(cached, CachedSlice), "labels alone lose nothing that designs on them look at"
            divergences[name] += rows.divergences(cached).cpu()
            ours[name].append(_agreement(rows.gradients(cached), truth))
            zero[name].append(_agreement(rows.zero_fill_gradients(cached), truth))
    return {
        name: CacheBias(
            kl=float(divergences[name][0]) / tokens,
            student_kl=float(divergences[name][1]) / tokens,
            cosine=statistics.fmean(ours[name]),
            worst_cosine=min(ours[name]),
            zero_fill_cosine=statistics.fmean(zero[name]),
            zero_fill_worst_cosine=min(zero[name]),
            tokens=tokens,
        )
        for name in caches
    }


def _rows(student: nn.Module, teacher: FrozenModel, batch: Batch) -> _Rows:
    with evaluating(student):
        hidden = hidden_states(student, batch.inputs)[batch.valid]
    return _Rows(batch.flat_labels, hidden, output_head(student), teacher.rows(batch))


def _agreement(ours: list[Tensor], truth: list[Tensor]) -> float:
    """The smaller cosine of two pairs of gradients."""
    return min(_cosine(*pair) for pair in zip(ours, truth, strict=True))


def _cosine(left: Tensor, right: Tensor) -> float:
    """In float64, some rows at a time: a head's gradient as a whole would be a large copy."""
    total = torch.zeros(3, dtype=torch.float64, device=left.device)
    for a, b in zip(torch.split(left, COSINE_ROWS), torch.split(right, COSINE_ROWS), strict=True):
        a, b = a.double(), b.double()
        total += torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()])
    both, ours, truth = total.tolist()
    return both / math.sqrt(ours * truth) if ours * truth > 0 else math.nan
