"""Demonstrations as they were read: messages or text, what of them is learnt, and what their row says of each token.

A weight is a multiplicity: 2 is as if the token were there twice, 0 is no loss at all. Weights of row, message and
token are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...spaces.errors import UserError
from .messages import FIELD, Message, refused

if TYPE_CHECKING:
    from .sources import Source

Span = tuple[int, int]
"""Start and end in characters."""
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
    critical: tuple[Span, ...] | None = None
    """Likewise; None: nothing is said."""
    token_weights: tuple[float, ...] | None = None
    """Of each token that is learnt."""
    logprobs: tuple[float, ...] | None = None
    """Of each token that is learnt, nats."""
    answers: tuple[float, ...] = ()
    """Of each answer that is learnt, by its message."""

    @property
    def by_token(self) -> bool:
        return self.token_weights is not None or self.logprobs is not None

    @property
    def marks(self) -> dict[str, list[Span]]:
        """Spans of characters, by the setting that names their column."""
        critical = {} if self.critical is None else {"critical_column": list(self.critical)}
        return critical | ({"weight_column": [(start, end) for start, end, _ in self.spans]} if self.spans else {})

    def moved(self, by: int) -> Known:
        """The same with spans `by` characters later."""
        critical = None if self.critical is None else tuple(shifted(self.critical, by))
        return replace(self, critical=critical, spans=tuple((start + by, end + by, w) for start, end, w in self.spans))


@dataclass(frozen=True)
class Conversation:
    """Messages up to the last answer that is learnt."""

    messages: tuple[Message, ...]
    learnt: tuple[int, ...]
    """Numbers of the messages with a loss, rising."""
    tools: tuple[Mapping[str, Any], ...] | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    known: Known = field(default_factory=Known)

    @property
    def asked(self) -> Iterator[str]:
        """What people ask in it."""
        return (message["content"] for message in self.messages if message["role"] == "user")


@dataclass(frozen=True)
class PlainText:
    """A demonstration that goes through no template."""

    prompt: str
    completion: str
    place: str = ""
    whole: bool = False
    """Whether it is one text without a prompt, which may hold its own special tokens."""
    known: Known = field(default_factory=Known)

    @property
    def asked(self) -> Iterator[str]:
        return iter((self.completion if self.whole else self.prompt,))


Turn = Conversation | PlainText


def shifted(spans: Sequence[Span], by: int) -> list[Span]:
    return [(start + by, end + by) for start, end in spans]


def check_spans(known: Known, completion: str, place: str) -> None:
    """Raise UserError for spans beyond the completion."""
    for key, spans in known.marks.items():
        if any(end > len(completion) for _, end in spans):
            raise UserError(
                f"`{key}` must hold spans within the completion's {len(completion)} characters, but {place} has "
                f"{[list(span) for span in spans]}; count the characters of the completion alone",
                field=f"{FIELD}.{key}",
            )


def read_known(values: Mapping[str, Any], place: str, settings: Source) -> Known:
    """What the columns of a row say. Raises UserError for what are no weights, log-probabilities or spans."""
    known = Known()
    if settings.weight_column is not None:
        known = _weights(values.get(settings.weight_column), place, settings.weight_column)
    column = settings.reference_logprob_column
    if column is not None:
        known = replace(known, logprobs=_logprobs(values.get(column), place, column))
    if settings.critical_column is not None:
        known = replace(known, critical=_spans(values[settings.critical_column], place, settings.critical_column))
    return known


def message_weight(message: Message) -> float:
    """How often an answer counts by its own key `weight`, which has been checked; 1 where it has none."""
    return float(message.get("weight", 1))


def is_weight(value: Any) -> bool:
    """Whether a value is a number from 0 up."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


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
    """Whether a value is a weighted span."""
    return isinstance(value, list) and len(value) == 3 and is_weight(value[2]) and _are_ends(value[:2])


def _are_ends(value: Any) -> bool:
    return isinstance(value, list) and list(map(type, value)) == [int, int] and 0 <= value[0] <= value[1]


def _spans(value: Any, place: str, column: str) -> tuple[Span, ...]:
    if not isinstance(value, list) or not all(map(_are_ends, value)):
        raise refused(
            column, "a list of character spans [[start, end], ...] of the completion", place, value, "mend the row",
            f"{FIELD}.critical_column",
        )  # fmt: skip
    return tuple((start, end) for start, end in value)


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
