"""Batched generation with the weights already in memory: one running batch that sequences leave and join.

A sequence that ends is retired and its place refilled; k samples of one prompt share its prefill, and all prompts that
of what they begin with. Batches are left-padded and attend through a 2-D mask, so that any transformers decoder with
attention layers works. Greedy decoding takes the same argmax as `model.generate(do_sample=False)`; sampling is
Gumbel-max with counter-based noise (`sampling.py`).

Given the logits, a completion does not depend on batch composition. The logits do, in their last bits: matrix products
of other shapes round otherwise. In float32 (relative 1e-6) that practically never turns an argmax; in bfloat16 (1e-2)
near-ties turn now and then, as in every batched engine.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ...spaces.errors import UserError
from ...trainers.models.memory import out_of_memory, release
from ...trainers.models.transformers_versions import cache_argument
from .cache import Part, rebuild
from .completions import Completion, Request, Sampling, decode, finished
from .prefill import Prefilled, Tokens, common_prefix, prefill
from .sampling import choose

_PREFILL_TOKENS = 16384
"""Prompt tokens in one forward pass, padding included: bounds the activations of long prompts."""
_EFFICIENT_TOKENS = 512
"""Prompt tokens from which a larger forward pass hardly gains, so that padding is pure cost."""
_SHARE = 8
"""Retire and refill when an eighth of the batch is idle: each time copies the cache once."""
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Running:
    request: Request
    generated: list[int] = field(default_factory=list)
    done: bool = False
    started: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.request.prompt, *self.generated)

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.generated)


def generate(model: Any, tokenizer: Any, requests: Sequence[Request], sampling: Sampling) -> Generator[Completion]:
    """Yield the completion of every request, each as soon as it ends.

    Requests enter in the given order; order them by length where it may be chosen (less padding, and the longest first
    meets the memory limit first). Out of memory halves the batch and carries on with the tokens so far; at one
    sequence it is raised. The model is in eval mode until the iterator is exhausted or closed; no global random state
    is touched.

    Raises UserError for an architecture that is not made of attention layers.
    """
    check_architecture(model)
    queue = deque(_Running(request) for request in requests)
    batch = _Batch(model, tokenizer, sampling, common_prefix([request.prompt for request in requests]))
    with evaluation_mode(model):
        while queue or batch.rows:
            ended: list[Completion] = []
            try:
                ended = batch.advance(queue)
                exhausted = False
            except (RuntimeError, MemoryError) as error:
                exhausted = len(batch.unfinished()) > 1 and out_of_memory(error)
                if not exhausted:
                    raise
            if exhausted:  # outside the handler, whose traceback holds the tensors
                queue.extendleft(reversed(batch.shrink()))
            yield from ended


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Eval mode; afterwards every module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_architecture(model: Any) -> None:
    """Raise UserError when a layer keeps a state other than keys and values (state-space models, linear attention)."""
    config = model.config.get_text_config(decoder=True)
    other = set(getattr(config, "layer_types", None) or ()) - _ATTENTION
    if other or getattr(config, "is_encoder_decoder", False):
        what = ", ".join(sorted(other)) or "an encoder"
        raise UserError(
            f"Batched generation needs a decoder of attention layers, but got {type(model).__name__} with {what}; "
            "use `evaluation.backend: plain`, the model's own generate()"
        )


class _Batch:
    """The sequences in flight and their cache. Rows are left-padded to a common last column."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, prefix: Tokens) -> None:
        self.rows: list[_Running] = []
        self._joining: list[_Running] = []
        self._model, self._tokenizer, self._sampling = model, tokenizer, sampling
        self._device = model.get_input_embeddings().weight.device
        self._capacity = sampling.batch_size
        self._stop_window = max((len(stop.encode()) for stop in sampling.stop), default=0) + 4
        self._cache_argument = cache_argument(model)
        self._prefix = prefix
        self._known: Prefilled | None = None
        self._ended: list[_Running] = []
        self._cache: Any = None

    def advance(self, queue: deque[_Running]) -> list[Completion]:
        """Refill or compact when due, decode one token a row, return what ended."""
        running = len(self.unfinished())
        if queue and (self._capacity - running) * _SHARE >= self._capacity:
            self._admit(queue, self._capacity - running)
        elif (len(self.rows) - running) * _SHARE >= len(self.rows):
            self._move()
        if any(not row.done for row in self.rows):
            self._step()
        ended, self._ended = self._ended, []
        return [self._complete(row) for row in ended]

    def unfinished(self) -> list[_Running]:
        """The sequences in flight, in order of entry."""
        return [row for row in (*self.rows, *self._joining) if not row.done]

    def shrink(self) -> list[_Running]:
        """After an out-of-memory error: let go of everything, halve the batch, and return the unfinished sequences."""
        unfinished = self.unfinished()
        self._capacity = max(1, min(self._capacity, len(unfinished)) // 2)
        self.rows, self._joining, self._cache, self._known = [], [], None, None
        release()
        log.warning("out of memory while generating: at most %d sequences together from here on", self._capacity)
        return unfinished

    def _admit(self, queue: deque[_Running], free: int) -> None:
        """Prefill the next sequences of `queue`, at most `free`, and let them join."""
        self._joining = [queue.popleft() for _ in range(min(free, len(queue)))]
        parts: list[Part] = []
        last: list[Tensor] = []
        for group in _groups(self._joining, len(self._prefix)):
            cache, logits, spread = self._prefill(group)
            parts.append((cache, spread, 0))
            last.append(logits[spread])
        self._move(parts)
        self._accept(self.rows[len(self.rows) - sum(map(len, last)) :], torch.cat(last))

    def _prefill(self, group: Sequence[_Running]) -> tuple[Cache, Tensor, list[int]]:
        """Cache and last logits (prompts, vocab) of the distinct prompts, and the prompt of each sequence."""
        for row in group:
            row.started = row.started or time.perf_counter()
        if self._prefix and self._known is None:
            self._known = prefill(self._model, [self._prefix])
        distinct: dict[Tokens, int] = {}
        spread = [distinct.setdefault(row.ids, len(distinct)) for row in group]
        read = prefill(self._model, list(distinct), known=self._known, parents=[0] * len(distinct))
        return read.cache, read.logits[:, -1], spread

    def _move(self, joining: Sequence[Part] = ()) -> None:
        """Drop the rows that ended; add those that join, whose caches are given."""
        keep = [index for index, row in enumerate(self.rows) if not row.done]
        kept = [self.rows[index] for index in keep]
        # A running row's last token is chosen but not in the cache yet; a joining row has all its tokens there.
        cached = [row.length - 1 for row in kept] + [row.length for row in self._joining]
        parts = list(joining)
        if kept:
            parts.insert(0, (self._cache, keep, self._cache.get_seq_length() - max(cached[: len(kept)])))
        self._cache = rebuild(parts) if parts else None
        self._lengths = torch.tensor(cached, dtype=torch.int64, device=self._device)
        self.rows, self._joining = [*kept, *self._joining], []

    @torch.no_grad()
    def _step(self) -> None:
        """Feed the last token of every row and choose the next."""
        columns = self._cache.get_seq_length() + 1
        first = columns - 1 - self._lengths  # column of a row's first token
        mask = torch.arange(columns, device=self._device) >= first[:, None]
        output = self._model(
            input_ids=torch.tensor([[row.generated[-1]] for row in self.rows], device=self._device),
            attention_mask=mask.long(),
            position_ids=self._lengths[:, None],
            use_cache=True,
            **{self._cache_argument: self._cache},
        )
        self._lengths = self._lengths + 1
        self._accept(self.rows, output.logits[:, -1])

    def _accept(self, rows: Sequence[_Running], logits: Tensor) -> None:
        """Choose a token for each row from its logits (rows, vocab) and see which rows end."""
        keys = torch.tensor([row.request.key for row in rows], device=logits.device)
        positions = torch.tensor([len(row.generated) for row in rows], device=logits.device)
        tokens = choose(logits, self._sampling.temperature, keys, positions).tolist()
        for row, token in zip(rows, tokens, strict=True):
            if not row.done:
                row.generated.append(token)
                row.done = self._ends(row.generated)
                if row.done:
                    self._ended.append(row)

    def _ends(self, generated: list[int]) -> bool:
        if generated[-1] in self._sampling.end_tokens or len(generated) >= self._sampling.max_new_tokens:
            return True
        # A stop string of n bytes spans at most n tokens: look at the tail, and decode everything on a hit only.
        return bool(self._sampling.stop) and self._stopped(generated[-self._stop_window :]) and self._stopped(generated)

    def _stopped(self, tokens: list[int]) -> bool:
        text = decode(self._tokenizer, tokens)
        return any(stop in text for stop in self._sampling.stop)

    def _complete(self, row: _Running) -> Completion:
        seconds = time.perf_counter() - row.started
        return finished(self._tokenizer, row.request, tuple(row.generated), self._sampling, seconds)


def _groups(rows: Sequence[_Running], known: int) -> list[list[_Running]]:
    """Consecutive rows to prefill in one pass: within the memory bound, and with little padding once efficient.

    `known`: tokens of each row that are not read again.
    """
    groups: list[list[_Running]] = []
    for row in rows:
        if groups and _together([other.length - known for other in (*groups[-1], row)]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _together(lengths: Sequence[int]) -> bool:
    padded = max(lengths) * len(lengths)
    return padded <= _EFFICIENT_TOKENS or (padded <= _PREFILL_TOKENS and 8 * sum(lengths) >= 7 * padded)
