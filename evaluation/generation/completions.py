"""What is asked of a model and what it answers: requests, sampling, completions, and where a text ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn and where they end."""

    max_new_tokens: int
    end_tokens: frozenset[int]
    """Ids that end a completion; not part of its text."""
    temperature: float = 0.0
    """0: greedy."""
    stop: tuple[str, ...] = ()
    """A completion ends before the first of these."""
    batch_size: int = 64
    """Sequences decoded together, at most."""


@dataclass(frozen=True)
class Request:
    """One completion to make."""

    index: int
    """The caller's number for it."""
    prompt: tuple[int, ...]
    """Token ids."""
    key: int = 0
    """63-bit key of the sampling noise (`sampling.sequence_key`)."""


@dataclass(frozen=True)
class Completion:
    """What a model answered to one request."""

    index: int
    text: str
    tokens: tuple[int, ...]
    """Generated ids, the one that ended it included."""
    finish: Finish
    """`end`: an end token; `stop`: a stop string; `length`: cut at `max_new_tokens`."""
    seconds: float
    """Wall time from prefill to end, shared with the rest of the batch."""
    likelihoods: tuple[tuple[float, bool], ...] = ()
    """Where options are compared instead: of each (log-likelihood, whether it is the greedy choice)."""


def finished(
    tokenizer: Any, request: Request, tokens: tuple[int, ...], sampling: Sampling, seconds: float
) -> Completion:
    """What the generated `tokens` amount to: end token off, text cut at the first stop string, and how it ended."""
    ended = bool(tokens) and tokens[-1] in sampling.end_tokens
    full = decode(tokenizer, tokens[:-1] if ended else tokens)
    text = cut_at(full, sampling.stop)
    finish: Finish = "end" if ended else "stop" if text != full else "length"
    return Completion(request.index, text, tokens, finish, seconds)


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of generated tokens, without special ones."""
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def cut_at(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first occurrence of any of `stop`."""
    return text[: min((text.index(string) for string in stop if string in text), default=len(text))]
