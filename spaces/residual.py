"""Residual families: where the mass goes that the observed token does not get.

Letters: T tokens, V vocabulary, π the student. A residual R is a distribution over V unless its tail is dropped.
Modifiers act in this order: temperature, label excluded, truncation, tail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .numerics import normalised, top_mask
from .ranges import Searched
from .rows import Rows
from .settings import GrownSettings
from .temperature import AdaptiveTemperature

if TYPE_CHECKING:
    from torch import Tensor

Exponent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Tail = Literal["renormalise", "student", "uniform", "drop"]
NEARLY = 1e-5
"""How far the sum of a distribution may be from 1 by rounding."""


class Residual(GrownSettings):
    """A residual family and its modifiers."""

    kind: str
    temperature: Annotated[float, Field(ge=0.01, le=100), Searched(0.5, 2.0, log=True)] = 1.0
    """R^(1/temperature) renormalised; below 1 sharpens."""
    adaptive: AdaptiveTemperature | None = None
    """A temperature of its own for each token, by R's entropy there; instead of `temperature`."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep this many of the most probable tokens."""
    top_p: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Keep the fewest most probable tokens that reach this mass."""
    tail: Tail = "renormalise"
    """Where the mass of the truncated tokens goes: to the kept ones in proportion, back to the truncated ones as the
    student spreads them or evenly, or nowhere (`drop`: then ΣQ < 1)."""
    exclude_label: bool = False
    """Take the label out and renormalise; a row with nothing else is spread evenly over the other real tokens."""

    LATER: ClassVar[frozenset[str]] = frozenset({"adaptive"})
    source: ClassVar[str | None] = None
    """Whose distribution R is before its modifiers; None: no single one's."""

    @model_validator(mode="after")
    def _one_temperature(self) -> Self:
        if self.adaptive is not None and self.temperature != 1:
            raise ValueError(
                f"`temperature` and `adaptive` exclude each other, but got temperature={self.temperature} with both; "
                "keep one"
            )
        return self

    @model_validator(mode="after")
    def _tail_has_a_truncation(self) -> Self:
        if self.tail != "renormalise" and not self.truncated:
            raise ValueError(
                f"`tail` says what happens to truncated tokens, but got tail={self.tail!r} without `top_k` or `top_p`"
            )
        return self

    @property
    def truncated(self) -> bool:
        """Whether tokens are cut off."""
        return self.top_k is not None or self.top_p is not None

    @property
    def tempered(self) -> bool:
        """Whether R is sharper or flatter than its family."""
        return self.temperature != 1 or self.adaptive is not None

    @property
    def modified(self) -> bool:
        """Whether any modifier is set."""
        return self.truncated or self.tempered or self.exclude_label

    @property
    def needs(self) -> frozenset[str]:
        """Inputs beyond the student's logits and the labels."""
        return frozenset({self.source} if self.source else ()) - {"student"}

    @property
    def student_share(self) -> float:
        """How much of R is the student's own distribution, which moves nothing."""
        share = self._student_part()
        if self.tempered or self.exclude_label:
            return 0.0
        if self.truncated:  # cut off and given back as it was
            return float(share == 1 and self.tail == "student")
        return share

    def _student_part(self) -> float:
        """The student's share of the unmodified family."""
        return float(self.source == "student")

    def scores(self, rows: Rows) -> Tensor:
        """log R of the unmodified family up to a constant, shape (T, V)."""
        if self.source is None:
            raise TypeError(f"`{type(self).__name__}` is a base class and has no distribution of its own")
        return rows.logprobs_of(self.source)

    def probs(self, rows: Rows) -> Tensor:
        """R with its modifiers, shape (T, V), detached."""
        import torch

        scores = self.scores(rows).detach()
        if self.tempered:  # the largest score becomes 0, so that none can overflow; a row of −∞ stays one
            highest = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
            scores = (scores - highest) / self.temperature
        if self.adaptive is not None:
            scores = scores / self.adaptive.of(normalised(scores, rows.logprobs_of("student")).log())[:, None]
        fallback = rows.logprobs_of("student")
        if self.exclude_label:
            label = rows.given("labels", "student")[:, None]
            scores = scores.scatter(-1, label, -torch.inf)
            fallback = even(rows).log().scatter(-1, label, -torch.inf)
        probs = normalised(scores, fallback)
        return self._truncate(probs, rows) if self.truncated else probs

    def at_hand(self, rows: Rows) -> tuple[Tensor, Tensor] | None:
        """R and log R, shape (T, V), detached, where these are one source's as they lie there; else None.

        On a CPU: a GPU would have to wait to know whether the source is a distribution in each row.
        """
        if self.source is None or self.modified or (logprobs := rows.logprobs_of(self.source).detach()).is_cuda:
            return None
        probs = logprobs.exp()
        return (probs, logprobs) if bool(((probs.sum(-1) - 1).abs() <= NEARLY).all()) else None

    def _truncate(self, probs: Tensor, rows: Rows) -> Tensor:
        keep = top_mask(probs, self.top_k, self.top_p)
        kept = probs * keep
        if self.tail == "drop":
            return kept
        if self.tail == "renormalise":
            return kept / kept.sum(-1, keepdim=True)
        shape = rows.probs if self.tail == "student" else even(rows)
        shape = shape.masked_fill(keep, 0)
        if self.exclude_label:
            shape = shape.scatter(-1, rows.given("labels", "student")[:, None], 0)
        total = shape.sum(-1, keepdim=True)
        spread = kept + shape * (1 - kept.sum(-1, keepdim=True)).clamp(min=0) / total
        return spread.where(total > 0, kept / kept.sum(-1, keepdim=True))

    def formula(self) -> str:
        """R as a short text."""
        return self.kind

    def title(self) -> str:
        """R and its modifiers as a short text."""
        text = self.formula()
        if self.temperature != 1:
            text = f"({text})^(1/{self.temperature:.2g})"
        if self.adaptive is not None:
            text = f"({text})^(1/τ), {self.adaptive.title()}"
        marks = [
            "label excluded" if self.exclude_label else "",
            "" if self.top_k is None else f"top-{self.top_k}",
            "" if self.top_p is None else f"top-p {self.top_p:.4g}",
            f"tail {self.tail}" if self.truncated else "",
        ]
        return ", ".join([text, *(mark for mark in marks if mark)])


def even(rows: Rows) -> Tensor:
    """The uniform distribution over the real vocabulary, shape (T, V); padding rows of the head get nothing."""
    import torch

    uniform = torch.zeros_like(rows.logprobs_of("student"))
    uniform[..., : rows.real] = 1 / rows.real
    return uniform


class Student(Residual):
    """R = π: the mass teaches nothing, so the design is SFT with each token weighted by γ."""

    kind: Literal["student"] = "student"
    source: ClassVar[str | None] = "student"


class Uniform(Residual):
    """R even over the tokenizer's real vocabulary, the label included: label smoothing (Szegedy et al., 1512.00567)."""

    kind: Literal["uniform"] = "uniform"

    @model_validator(mode="after")
    def _is_not_truncated(self) -> Self:
        if self.truncated:
            raise ValueError(
                "the uniform residual cannot be truncated: all its tokens tie, so the kept ones would be arbitrary"
            )
        return self

    def scores(self, rows: Rows) -> Tensor:
        return even(rows).log()


class Reference(Residual):
    """R = π_ref, the frozen start model: SFT + KL, ASFT (2509.23753), GIFT (2601.09233)."""

    kind: Literal["reference"] = "reference"
    source: ClassVar[str | None] = "reference"


class Previous(Residual):
    """R = π_old, the policy of some steps ago; needs its full logits, not just the label's log-probability."""

    kind: Literal["previous"] = "previous"
    source: ClassVar[str | None] = "previous"


class Teacher(Residual):
    """R = π_T: knowledge distillation (Hinton et al., 1503.02531)."""

    kind: Literal["teacher"] = "teacher"
    source: ClassVar[str | None] = "teacher"


class Geometric(Residual):
    """R ∝ π^student · π_ref^reference · π_T^teacher. Target-SFT (2606.11189) is teacher = η, student = 1 − η.

    A token that a factor rules out (log-probability −∞) is ruled out; a row that is left without any token takes π.
    """

    kind: Literal["geometric"] = "geometric"
    teacher: Annotated[Exponent, Searched(0.0, 1.0)] = 0.5
    reference: Annotated[Exponent, Searched(0.0, 1.0)] = 0.0
    student: Exponent | None = None
    """None: what the others leave of 1, at least 0."""

    @model_validator(mode="after")
    def _has_a_factor(self) -> Self:
        if not any(self.exponents().values()):
            raise ValueError(
                "a geometric residual needs an exponent above 0, but got 0 for all; use the uniform residual"
            )
        return self

    def exponents(self) -> dict[str, float]:
        """The exponent of each source."""
        student = max(0.0, 1 - self.teacher - self.reference) if self.student is None else self.student
        return {"student": student, "reference": self.reference, "teacher": self.teacher}

    def _student_part(self) -> float:
        return float(self.exponents() == {"student": 1, "reference": 0, "teacher": 0})

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(name for name, exponent in self.exponents().items() if exponent) - {"student"}

    def scores(self, rows: Rows) -> Tensor:
        factors = [exponent * rows.logprobs_of(name) for name, exponent in self.exponents().items() if exponent]
        return sum(factors[1:], start=factors[0])

    def formula(self) -> str:
        return "·".join(f"{name}^{exponent:.2g}" for name, exponent in self.exponents().items() if exponent)


class Mixture(Residual):
    """R = Σ_k share_k·π_k / Σ_k share_k: the arithmetic mixture of student, uniform, reference, previous and teacher.

    Without any share it is the student's own distribution.
    """

    kind: Literal["mixture"] = "mixture"
    student: Annotated[Share, Searched(0.0, 1.0)] = 0.0
    uniform: Share = 0.0
    reference: Annotated[Share, Searched(0.0, 1.0)] = 0.5
    previous: Share = 0.0
    teacher: Annotated[Share, Searched(0.0, 1.0)] = 0.5

    def shares(self) -> dict[str, float]:
        """The share of each component that has one; they sum to 1."""
        names = ("student", "uniform", "reference", "previous", "teacher")
        raw: dict[str, float] = {name: getattr(self, name) for name in names}
        total = sum(raw.values())
        return {name: share / total for name, share in raw.items() if share} or {"student": 1.0}

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.shares()) - {"student", "uniform"}

    def _student_part(self) -> float:
        return self.shares().get("student", 0.0)

    def scores(self, rows: Rows) -> Tensor:
        parts = [
            share * (even(rows) if name == "uniform" else rows.logprobs_of(name).exp())
            for name, share in self.shares().items()
        ]
        return sum(parts[1:], start=parts[0]).log()

    def formula(self) -> str:
        return "+".join(f"{share:.2g}·{name}" for name, share in self.shares().items())
