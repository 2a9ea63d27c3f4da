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
