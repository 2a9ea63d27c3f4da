"""Signed terms: Q gains Σ_i c_i·(a_i − b_i), which sums to zero over the vocabulary, so ΣQ does not move.

Letters: T tokens, V vocabulary, π the student, p = π(y), δ = onehot(y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .numerics import expectation, log_softmax, product
from .ranges import Searched
from .rows import Rows
from .settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Signed:
    """A zero-sum addition to Q: label·δ + student·π + dense, and the value that it adds to the loss."""

    label: Tensor  # (T,)
    student: Tensor  # (T,)
    dense: Tensor  # (T, V)
    value: Tensor
    """(T,) nats, beyond `label`·(−log p)."""


class Contrast(Settings):
    """A signed term scaled by `coefficient`."""

    kind: str
    coefficient: Annotated[float, Field(ge=0, le=1e6), Searched(0.01, 1.0, log=True)] = 1.0

    @property
    def needs(self) -> frozenset[str]:
        """Inputs beyond the student's logits and the labels."""
        return frozenset()

    @property
    def acts(self) -> bool:
        """Whether the term is anything but zero."""
        return self.coefficient > 0

    @property
    def entries(self) -> int | None:
        """How many most probable tokens of its source, beside the label, the term moves; None: any token."""
        return None

    def signed(self, rows: Rows) -> Signed:
        """The term at these rows, detached."""
        raise TypeError(f"`{type(self).__name__}` is a base class and has no term of its own")

    def formula(self) -> str:
        """The term as a short text."""
        return self.kind

    def title(self) -> str:
        """The term with its coefficient as a short text."""
        return self.formula() if self.coefficient == 1 else f"{self.coefficient:.4g}·({self.formula()})"


GEM_SLOPE = 0.01
"""Slope of GEM's log-sigmoid, hard-coded by its authors."""


class Gem(Contrast):
    """Preserves diversity against q = sg softmax(z/beta). GEM (2408.16673); sums to zero.

    linear: π − q, from CE(δ, π) − CE(q, π). logsigmoid: (W − 1)·δ + π − r with r = q·σ(0.01(z − z_y)), W = Σr, from
    −Σ r(v)(log p − log π(v)): since σ ≈ 1/2, it has about half the gradient. The published losses have γ = 1 and
    coefficient 1.
    """

    kind: Literal["gem"] = "gem"
    beta: Annotated[float, Field(ge=0.05, le=20), Searched(0.3, 1.0)] = 0.7
    """Temperature of q."""
    link: Literal["linear", "logsigmoid"] = "linear"

    @property
    def acts(self) -> bool:
        return self.coefficient > 0 and not (self.link == "linear" and self.beta == 1)  # where q = π

    def signed(self, rows: Rows) -> Signed:
        import torch

        logprobs = rows.logprobs_of("student")
        pull = log_softmax(logprobs / self.beta).exp()
        total = torch.ones_like(rows.label_logprobs)
        if self.link == "logsigmoid":
            margin = logprobs - rows.label_logprobs[:, None]
            pull = product(pull, (GEM_SLOPE * margin).sigmoid())
            total = pull.sum(-1)
        c = self.coefficient
        return Signed(
            label=c * (total - 1),
            student=torch.full_like(total, c),
            dense=-c * pull,
            value=c * expectation(pull, logprobs),
        )

    def formula(self) -> str:
        return f"student − student^(1/{self.beta:.4g}), {self.link}"


class ReverseKl(Contrast):
    """−π·(log(π/anchor) − KL): the gradient of coefficient·KL(π‖anchor); sums to zero.

    A token that the anchor rules out but the student does not would cost infinitely much; its anchor probability counts
    as the smallest normal number.
    """

    kind: Literal["reverse_kl"] = "reverse_kl"
    anchor: Literal["reference", "teacher"] = "reference"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.anchor})

    def signed(self, rows: Rows) -> Signed:
        import torch

        logprobs, anchor = rows.logprobs_of("student"), rows.logprobs_of(self.anchor)
        floor = torch.log(torch.tensor(torch.finfo(anchor.dtype).tiny, dtype=anchor.dtype)).item()
        ratio = product(rows.probs, logprobs - anchor.clamp(min=floor))
        return _pure(self.coefficient, rows, ratio)

    def formula(self) -> str:
        return f"−∇KL(student‖{self.anchor})"


class Plateau(Contrast):
    """q_S − π_S: keeps the shape among the alternatives of the label as the anchor has it. LP-SFT; sums to zero.

    S are the anchor's `top_k` most probable tokens without the label; both distributions are renormalised on S, q at
    `temperature`. From coefficient·CE(q_S, π_S). The mass on S as a whole is left to the label's own term. Nothing
    outside S is looked at, so a cached anchor with top_k entries is exact.
    """

    kind: Literal["plateau"] = "plateau"
    anchor: Literal["reference", "teacher"] = "reference"
    top_k: Annotated[int, Field(ge=1, le=4096)] = 10
    temperature: Annotated[float, Field(ge=0.05, le=20)] = 1.0
    """τ of q."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.anchor})

    @property
    def acts(self) -> bool:
        return self.coefficient > 0 and self.top_k > 1  # one alternative has no shape

    @property
    def entries(self) -> int | None:
        return self.top_k

    def signed(self, rows: Rows) -> Signed:
        import torch

        zero = torch.zeros_like(rows.label_logprobs)
        if not self.acts:
            return Signed(zero, zero, torch.zeros_like(rows.logprobs_of("student")), zero)
        anchor, known = rows.logprobs_of(self.anchor), rows.known_of(self.anchor)
        ranked = anchor if known is None else anchor.masked_fill(~known, -torch.inf)
        best, places = ranked.topk(min(self.top_k, anchor.shape[-1]), dim=-1)
        left_out = places == rows.given("labels", "student")[:, None]
        if known is not None:
            left_out = left_out | ~known.gather(-1, places)
        wanted = _softmax_of((best / self.temperature).masked_fill(left_out, -torch.inf))
        student = rows.logprobs_of("student").gather(-1, places)
        student = student.masked_fill((left_out | student.isneginf()).all(-1, keepdim=True), 0)  # no shape: even
        student = student.masked_fill(left_out, -torch.inf)
        found = _softmax_of(student)
        log_found = log_softmax(student).masked_fill(left_out, 0)
        c = self.coefficient
        return Signed(
            label=zero,
            student=zero,
            dense=torch.zeros_like(anchor).scatter(-1, places, c * (wanted - found)),
            value=-c * expectation(wanted, log_found),
        )

    def formula(self) -> str:
        return f"{self.anchor}−student on its top-{self.top_k} without the label"


def _softmax_of(scores: Tensor) -> Tensor:
    """softmax over the last dimension; a row of −∞ has no mass at all."""
    import torch

    highest = scores.amax(-1, keepdim=True)
    weights = (scores - torch.where(highest.isfinite(), highest, 0)).exp()
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


class EntropyBonus(Contrast):
    """−π·(log π + H): the gradient of −coefficient·H(π), which keeps the student's entropy up; sums to zero."""

    kind: Literal["entropy_bonus"] = "entropy_bonus"

    def signed(self, rows: Rows) -> Signed:
        return _pure(self.coefficient, rows, product(rows.probs, rows.logprobs_of("student")))

    def formula(self) -> str:
        return "∇H(student)"


def _pure(c: float, rows: Rows, terms: Tensor) -> Signed:
    """The term of c·Σ_v π(v)·f(v), given π·f as (T, V), when ∂f/∂log π = 1: −c·π(f − Σπf)."""
    import torch

    total = terms.sum(-1)
    return Signed(label=torch.zeros_like(total), student=c * total, dense=-c * terms, value=c * total)
