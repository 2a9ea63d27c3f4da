"""Log-likelihoods of given continuations, in batches: how tasks of lm-evaluation-harness score the options of a choice.

Tokens are cut as the library cuts them (`TemplateLM._encode_pair`): context and continuation are tokenised as one text,
and what the context alone does not have is the continuation. The sum is over log-probabilities in float32. What all
contexts begin with is read once, and a context once for all of its continuations, where that spares enough.

Letters: B rows, L tokens, C tokens of the longest continuation, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...trainers.models.memory import out_of_memory, release
from .batched import evaluation_mode
from .prefill import WORTHWHILE, Prefilled, Tokens, common_prefix, last_logits, own_columns, prefill

_TOKENS = 16384
"""Tokens of one forward pass, padding included."""

Likelihood = tuple[float, bool]
"""(log-likelihood in nats, whether every token of the continuation is the likeliest one)."""


@dataclass(frozen=True)
class Pair:
    """Token ids of a context and of one of its continuations, both with at least one."""

    context: Tokens
    continuation: Tokens

    @property
    def read(self) -> Tokens:
        """What the model reads: all but the last token."""
        return (*self.context, *self.continuation[:-1])


@dataclass(frozen=True)
class Question:
    """Continuations to compare; `index` is the caller's number for them."""

    index: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Likelihoods:
    """The answer to one question."""

    index: int
    values: tuple[Likelihood, ...]
    """In the order of the pairs."""
    seconds: float
    """Wall time, shared with the rest of the batch."""


def encode_pair(tokenizer: Any, context: str, continuation: str) -> Pair:
    """Spaces at the end of the context belong to the continuation: they make one token with its first word."""
    if not context:
        ids = tuple(tokenizer(continuation, add_special_tokens=False)["input_ids"])
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return Pair((first,), ids) if ids[:1] != (first,) else Pair(ids[:1], ids[1:])
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    whole, before = (plain_ids(tokenizer, text) for text in (context + continuation, context))
    return Pair(tuple(before), tuple(whole[len(before) :]))


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids with the special ones that the tokenizer adds, unless the text has begun with its first already."""
    first = tokenizer.bos_token or tokenizer.eos_token
    return list(tokenizer(text, add_special_tokens=not (first and text.startswith(first)))["input_ids"])


def likelihoods(model: Any, questions: Sequence[Question], batch_size: int) -> Iterator[Likelihoods]:
    """The questions' answers, in their order; at most `batch_size` rows at a time.

    Options that differ in their last token alone are one row. Out of memory halves the batch; at one row it is raised.
    """
    contexts = [pair.context for question in questions for pair in question.pairs]
    with evaluation_mode(model):
        start, rows, shared = 0, batch_size, common_prefix(contexts)
        known = prefill(model, [shared]) if shared else None
        while start < len(questions):
            taken = _taken(questions[start:], rows)
            began = time.perf_counter()
            values = _answered(model, questions[start : start + taken], rows, known)
            if values is None:  # outside the handler, whose traceback holds the tensors
                release()
                rows = max(1, rows // 2)
                continue
            seconds = (time.perf_counter() - began) / taken
            for question, found in zip(questions[start : start + taken], values, strict=True):
                yield Likelihoods(question.index, found, seconds)
            start += taken


def _taken(questions: Sequence[Question], rows: int) -> int:
    """How many of the questions fill a batch: at least one."""
    count, taken = 0, 0
    for question in questions:
        count += len({pair.read for pair in question.pairs})
        if taken and count > rows:
            break
        taken += 1
    return taken


def _answered(
    model: Any, questions: Sequence[Question], rows: int, known: Prefilled | None
) -> list[tuple[Likelihood, ...]] | None:
    """Values by question; None where memory does not suffice for more than one row."""
    pairs = [pair for question in questions for pair in question.pairs]
    read = sorted({pair.read for pair in pairs}, key=len, reverse=True)
    found: dict[Pair, Likelihood] = {}
    try:
        for batch in _batches(read, rows):
            inside = set(batch)
            found |= _scored(model, batch, [pair for pair in pairs if pair.read in inside], known)
    except (RuntimeError, MemoryError) as error:
        if rows == 1 or not out_of_memory(error):
            raise
        return None
    return [tuple(found[pair] for pair in question.pairs) for question in questions]


def _batches(read: Sequence[Tokens], rows: int) -> Iterator[list[Tokens]]:
    """Rows of falling length, within the limits of rows and of tokens."""
    start = 0
    while start < len(read):
        size = max(1, min(rows, _TOKENS // len(read[start])))
        yield list(read[start : start + size])
        start += size


@torch.no_grad()
def _scored(
    model: Any, batch: Sequence[Tokens], pairs: Sequence[Pair], known: Prefilled | None
) -> dict[Pair, Likelihood]:
    """Rows are left-padded, so that the last columns of all of them are what continuations need."""
    longest = max(len(pair.continuation) for pair in pairs)
    contexts = {pair.read: pair.context for pair in sorted(pairs, key=lambda pair: -len(pair.context))}
    logits = _read(model, batch, [contexts[read] for read in batch], longest, known)
    found = {}
    for pair in pairs:
        size = len(pair.continuation)
        rows = logits[batch.index(pair.read), -size:].float()
        wanted = torch.tensor(pair.continuation, device=rows.device)
        values = rows.gather(1, wanted.unsqueeze(1)).squeeze(1) - rows.logsumexp(1)
        found[pair] = (float(values.sum()), bool((rows.argmax(1) == wanted).all()))
    return found


def _read(
    model: Any, batch: Sequence[Tokens], contexts: Sequence[Tokens], last: int, known: Prefilled | None
) -> Tensor:
    """(B, C, V) logits of the last `last` columns, by way of each row's context where that spares enough tokens."""
    distinct = {context: number for number, context in enumerate(dict.fromkeys(contexts))}
    before = 0 if known is None else len(known.rows[0])
    at_once = len(batch) * max(last, max(map(len, batch)) - before)
    of_contexts = len(distinct) * max(1, max(map(len, distinct)) - before)
    if at_once - of_contexts - len(batch) * own_columns(batch, contexts, last) >= WORTHWHILE:
        read = prefill(model, list(distinct), known=known, parents=[0] * len(distinct))
        return prefill(model, batch, last=last, known=read, parents=[distinct[each] for each in contexts]).logits
    if known is not None:
        return prefill(model, batch, last=last, known=known, parents=[0] * len(batch)).logits
    return _last_logits(model, batch, last)


def _last_logits(model: Any, batch: Sequence[Tokens], last: int) -> Tensor:
    """(B, C, V) logits of the last `last` columns."""
    device = model.get_input_embeddings().weight.device
    columns = max(map(len, batch))
    ids = torch.zeros(len(batch), columns, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, columns - len(tokens) :] = torch.tensor(tokens)
        mask[row, columns - len(tokens) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = {} if bool(mask.all()) else {"attention_mask": mask.to(device), "position_ids": positions.to(device)}
    output = model(input_ids=ids.to(device), use_cache=False, **padded, **last_logits(model, last))
    return torch.as_tensor(output.logits)[:, -last:]
