"""What a row says of each token of its answer: how often it counts, and its log-probability under a reference.

A weight is a multiplicity: 2 is as if the token were there twice, 0 is no loss at all. Weights of row, message and
token are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .messages import FIELD, Message, refused

if TYPE_CHECKING:
    from torch import Tensor

    from .sources import Source

WeightedSpan = tuple[int, int, float]
"""Start and end in characters, and the weight of what lies between."""
WEIGHTS = (
    "a number from 0 up, a list of one a token of the answer, or spans [[start, end, weight], ...] of its characters"
)


@dataclass(frozen=True)
class Known:
    """What one row says of its tokens."""

    weight: float = 1.0
    """Of the whole row."""
    spans: tuple[WeightedSpan, ...] = ()
    """Characters of the last answer's content, then of the text; what lies in none counts once."""
    token_weights: tuple[float, ...] | None = None
    """Of each token that is learnt."""
    logprobs: tuple[float, ...] | None = None
    """Of each token that is learnt, nats."""
    answers: tuple[float, ...] = ()
    """Of each answer that is learnt, by its message."""

    @property
    def by_token(self) -> bool:
        return self.token_weights is not None or self.logprobs is not None

    def moved(self, by: int) -> Known:
        """The same with spans `by` characters later."""
        return replace(self, spans=tuple((start + by, end + by, weight) for start, end, weight in self.spans))


def read_known(values: Mapping[str, Any], place: str, settings: Source) -> Known:
    """What the columns of a row say. Raises UserError for what is no weight or no log-probability."""
    known = Known()
    if settings.weight_column is not None:
        known = _weights(values.get(settings.weight_column), place, settings.weight_column)
    column = settings.reference_logprob_column
    if column is not None:
        known = replace(known, logprobs=_logprobs(values.get(column), place, column))
    return known


def message_weight(message: Message) -> float:
    """How often an answer counts by its own key `weight`, which has been checked; 1 where it has none."""
    return float(message.get("weight", 1))


def is_weight(value: Any) -> bool:
    """Whether a value is a number from 0 up."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def columns_of(
    known: Known, learnt: Tensor, answers: Sequence[slice], offsets: Sequence[tuple[int, int]] | None, place: str
) -> dict[str, Tensor]:
    """`weights` and `reference_logprobs` of a demonstration, (n,) each; those that would say nothing are left out.

    `learnt` (n,) bool; `answers` are the tokens of each learnt answer, `offsets` the characters of each token. Raises
    UserError for a list that has not one number a learnt token.
    """
    import torch  # problems are read by what knows no torch

    found = {}
    weights = torch.full(learnt.shape, known.weight)
    for tokens, weight in zip(answers, known.answers, strict=False):
        weights[tokens] *= weight
    if known.token_weights is not None:
        weights[learnt] *= _fitting(known.token_weights, learnt, place, "weight_column")
    if known.spans:
        assert offsets is not None
        weights *= torch.tensor([_of_span(known.spans, first, last) for first, last in offsets])
    if bool((weights[learnt] != 1).any()):
        found["weights"] = weights.where(learnt, 0.0)
    if known.logprobs is not None:
        logprobs = torch.zeros(learnt.shape)
        logprobs[learnt] = _fitting(known.logprobs, learnt, place, "reference_logprob_column")
        found["reference_logprobs"] = logprobs
    return found


def _of_span(spans: Sequence[WeightedSpan], first: int, last: int) -> float:
    """The weight of a token's characters: that of the last span which touches them, 1 outside of all."""
    return next((weight for start, end, weight in reversed(spans) if first < end and start < last), 1.0)


def _fitting(values: Sequence[float], learnt: Tensor, place: str, key: str) -> Tensor:
    import torch

    wanted = int(learnt.sum())
    if len(values) != wanted:
        raise refused(
            key, f"a list of {wanted} numbers, one a token that is learnt, its end included", place,
            f"{len(values)} numbers", "compute them with this tokenizer and template", f"{FIELD}.{key}",
        )  # fmt: skip
    return torch.tensor(values, dtype=torch.float32)


def _weights(value: Any, place: str, column: str) -> Known:
    if value is None or value == []:
        return Known()
    if is_weight(value):
        return Known(weight=float(value))
    if isinstance(value, list) and all(is_weight(each) for each in value):
        return Known(token_weights=tuple(map(float, value)))
    if isinstance(value, list) and all(_is_span(each) for each in value):
        return Known(spans=tuple((start, end, float(weight)) for start, end, weight in value))
    raise refused(column, WEIGHTS, place, value, "mend the row", f"{FIELD}.weight_column")


def _is_span(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or not is_weight(value[2]):
        return False
    return all(type(end) is int for end in value[:2]) and 0 <= value[0] <= value[1]


def _logprobs(value: Any, place: str, column: str) -> tuple[float, ...]:
    numbers = isinstance(value, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and -math.inf < each <= 0 for each in value
    )
    if not numbers:
        raise refused(
            column, "a list of log-probabilities, at most 0 each, one a token of the answer", place, value,
            "mend the row", f"{FIELD}.reference_logprob_column",
        )  # fmt: skip
    return tuple(map(float, value))
