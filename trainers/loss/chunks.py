"""The chunks of one call: logits, target, gradient, and what is reported of each token.

Letters: T valid tokens, R rows of a chunk, C entries, V vocabulary, H width, D designs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...spaces.numerics import expectation, log_softmax
from ...spaces.residual import Uniform
from ...spaces.rows import LabelRows, Rows
from ...spaces.target import Design, TargetSpec, count, design, trust
from .dense import LABELLED
from .gradients import Gradients, NoGradients
from .head import WORKSPACE, Head, compute_dtype, padded
from .inputs import ValidTokens
from .residual_source import CoarseColumns
from .row_form import CoarseRows, Plan, row_form, write_gradient
from .tail_softmax import cached_rows, tail_softmax

CPU_CHUNK_ROWS = 256
"""More rows a chunk fall out of the cache; fewer starve the GEMMs."""
ROUND_ROWS = 32
DENSE_BUFFERS = 14
"""(R, V) tensors alive at once while a target is worked out on the whole vocabulary."""
ROWS_BUFFERS = 5
"""As many more while a trust family looks at whole rows."""


@dataclass(frozen=True, eq=False)
class Call:
    """What stays the same over the chunks."""

    hidden: Tensor  # (T, H), detached
    head: Head
    tokens: ValidTokens

    @property
    def num_tokens(self) -> int:
        return len(self.tokens.labels)

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.hidden.dtype)

    @property
    def _rounds_on_cpu(self) -> bool:
        """Whether products come in half precision, and are widened."""
        return not self.hidden.is_cuda and self.hidden.dtype != self.dtype

    def chunks(self, plan: Plan, max_bytes: int) -> Iterator[slice]:
        """Slices whose tensors stay below `max_bytes`, of nearly equal length.

        In half precision on a CPU of a round one, the last aside: oneDNN compiles kernels for each new shape.
        """
        width = self.head.vocab if self.hidden.is_cuda else padded(self.head.vocab, self.dtype.itemsize)
        row_bytes = self._buffers(plan) * width * self.dtype.itemsize
        rows = max_bytes // row_bytes
        if rows < 1:
            raise ValueError(
                f"`max_chunk_bytes` must hold at least one row of the vocabulary, but got {max_bytes}; "
                f"give at least {row_bytes} bytes"
            )
        if not self.hidden.is_cuda:
            rows = min(rows, CPU_CHUNK_ROWS)
        number = math.ceil(self.num_tokens / rows)
        size = math.ceil(self.num_tokens / number) if number else 1
        if self._rounds_on_cpu:
            size = min(rows, math.ceil(size / ROUND_ROWS) * ROUND_ROWS)
        return (slice(start, min(start + size, self.num_tokens)) for start in range(0, self.num_tokens, size))

    def _buffers(self, plan: Plan) -> int:
        if plan.dense:
            return DENSE_BUFFERS + 2 * len(self.tokens.sources)
        needs = frozenset().union(*(spec.gamma.needs for _, spec in plan.row_form))
        models = bool(needs & self.tokens.live)
        rows = any(spec.gamma.sees == "rows" for _, spec in plan.row_form)
        return 1 + self._rounds_on_cpu + ROWS_BUFFERS * rows + 2 * models


@dataclass(frozen=True, eq=False)
class TokenResults:
    """What is reported of each token, (R,) or (T,) each, detached."""

    loss: Tensor  # nats, weight included
    label_prob: Tensor
    entropy: Tensor  # of the student, nats
    count: Tensor  # what the token adds to the denominator of a batch

    @classmethod
    def join(cls, parts: list[TokenResults], empty: Tensor) -> TokenResults:
        """One after the other; `empty` (0,) stands for no parts."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([empty, *(getattr(part, name) for part in parts)]) for name in names})


class Chunk:
    """One chunk of logits. `coarse` uses them up, so dense rows are asked first."""

    def __init__(self, call: Call, index: slice, linear: Tensor) -> None:
        self.call, self.index = call, index
        self.hidden = call.hidden[index]
        self.linear = linear
        """Logits before the cap, (R, V)."""
        self._source_logits: dict[str, Tensor] = {}

    @classmethod
    def compute(cls, call: Call, index: slice, buffer: Tensor) -> Chunk:
        """The GEMM of the tokens in `index`, into the first rows of `buffer`."""
        return cls(call, index, call.head.linear(call.hidden[index], out=buffer[: index.stop - index.start]))

    def parts(self, needs: frozenset[str]) -> list[Chunk]:
        """The chunk a few rows at a time, for many passes over rows that stay in the CPU's cache.

        The GEMMs of the sources that `needs` names are done for the whole chunk.
        """
        tokens, step = self.call.tokens, cached_rows(self.linear)
        for name in needs & tokens.live - self._source_logits.keys():
            self._source_logits[name] = tokens.sources[name].logits(self.index, self.call.head.vocab)
        found = []
        for start in range(0, len(self.linear), step):
            linear = self.linear[start : start + step]
            first = self.index.start + start
            part = Chunk(self.call, slice(first, first + len(linear)), linear)
            part._source_logits = {name: rows[start : start + step] for name, rows in self._source_logits.items()}
            found.append(part)
        return found

    @cached_property
    def logits(self) -> Tensor:
        """z after the cap, (R, V)."""
        return self.linear if self.call.head.softcap is None else self.call.head.cap_(self.linear.clone())

    @cached_property
    def logprobs(self) -> Tensor:
        """log π, (R, V), nats."""
        return log_softmax(self.logits)

    def dense_rows(self, needs: frozenset[str]) -> Rows:
        """The rows of a part on the whole vocabulary, with the sources that `needs` names."""
        tokens = self.call.tokens
        labels = tokens.labels[self.index][:, None]
        asked = {name: source for name, source in tokens.sources.items() if name in needs}
        at_label = {name: source.labels[self.index] for name, source in asked.items() if source.labels is not None}
        given = {
            name: source.logprobs(self.index, self.logprobs, self._source_logits.get(name))
            for name, source in asked.items()
            if source.labels is None
        }
        at_label |= {name: rows.gather(1, labels)[:, 0] for name, rows in given.items() if name in LABELLED}
        sources: dict[str, Any] = {f"{name}_logprobs": rows for name, rows in given.items()}
        sources |= {f"{name}_label_logprobs": logprobs for name, logprobs in at_label.items()}
        return Rows(
            label_logprobs=self.logprobs.gather(1, labels)[:, 0],
            labels=labels[:, 0],
            logits=self.logits,
            logprobs=self.logprobs,
            real_vocab=self.call.head.real_vocab,
            **sources,
            **tokens.chunk_columns(self.index),
        )

    def label_rows(self, needs: frozenset[str]) -> LabelRows:
        """The scalars of the labels alone, with those of the sources that `needs` names."""
        tokens = self.call.tokens
        labels = tokens.labels[self.index][:, None]
        logprobs = self.logits.gather(1, labels)[:, 0] - self.logits.logsumexp(1)
        return tokens.scalars(self.index, logprobs, needs, self.call.head.vocab)

    def coarse(self, columns: CoarseColumns) -> CoarseRows:
        """The pass over the logits that every row form starts from; `columns` of this chunk."""
        tail = tail_softmax(self.linear, columns.ids, self.call.head)
        return CoarseRows(tail, columns)


@dataclass(frozen=True, eq=False)
class _Trust:
    """γ of one design at one chunk (R,), and its label loss when only whole rows can tell."""

    gamma: Tensor
    label_loss: Tensor | None = None


class ChunkLoop:
    """Runs designs over the chunks of a call and hands their gradients to `gradients`."""

    def __init__(self, call: Call, specs: list[TargetSpec], gradients: Gradients) -> None:
        self.call, self.specs, self.gradients = call, specs, gradients
        self.plan = Plan.make(
            specs,
            call.tokens.cached,
            capped=call.head.softcap is not None,
            vocab=call.head.vocab,
            fewest=call.tokens.fewest,
        )
        self.columns = call.tokens.coarse_columns(self.plan.sources)
        self.results: list[list[TokenResults]] = [[] for _ in specs]

    def run(self, max_bytes: int) -> list[TokenResults]:
        """The per-token results of each design."""
        call = self.call
        chunks = list(call.chunks(self.plan, max_bytes))
        rows = max((chunk.stop - chunk.start for chunk in chunks), default=0)
        logits = WORKSPACE.take(rows, call.head.vocab, call.dtype, call.hidden.device)
        batch = self._batch_trust(chunks, logits)
        for index in chunks:
            known = {number: _Trust(gamma[index]) for number, gamma in batch.items()}
            self._step(Chunk.compute(call, index, logits), known)
        empty = logits.new_empty(0)
        return [TokenResults.join(parts, empty) for parts in self.results]

    def _batch_trust(self, chunks: list[slice], logits: Tensor) -> dict[int, Tensor]:
        """γ (T,) of the families that look at the whole batch: a first pass over its label log-probabilities."""
        specs = {number: spec for number, spec in enumerate(self.specs) if spec.gamma.scope == "batch"}
        if not specs or not chunks:
            return {}
        if self.call.tokens.gamma is not None:
            return dict.fromkeys(specs, self.call.tokens.gamma)
        needs = frozenset().union(*(spec.gamma.needs for spec in specs.values()))
        parts = [Chunk.compute(self.call, index, logits).label_rows(needs) for index in chunks]
        whole = _joined(parts)
        return {number: trust(spec, whole) for number, spec in specs.items()}

    def _step(self, chunk: Chunk, known: dict[int, _Trust]) -> None:
        for number, spec in self.plan.dense:
            self._dense(number, spec, chunk, known.get(number))
        for number, spec in self.plan.row_form:
            if spec.gamma.sees == "rows" and number not in known:
                known[number] = self._trust_of_rows(spec, chunk)
        if self.plan.row_form:
            self._row_forms(chunk, known)

    def _trust_of_rows(self, spec: TargetSpec, chunk: Chunk) -> _Trust:
        gammas, losses = [], []
        for part in chunk.parts(spec.gamma.needs):
            rows = part.dense_rows(spec.gamma.needs)
            gammas.append(trust(spec, rows))
            losses.append(spec.gamma.label_loss(rows, gammas[-1]))
        return _Trust(torch.cat(gammas), torch.cat(losses))

    def _dense(self, number: int, spec: TargetSpec, chunk: Chunk, known: _Trust | None) -> None:
        parts = chunk.parts(spec.needs)
        wanted = not isinstance(self.gradients, NoGradients)
        last = number == self.plan.dense[-1][0] and not self.plan.row_form
        gradient = chunk.linear if last else torch.empty_like(chunk.linear) if wanted else None
        start = 0
        for part in parts:
            inside = slice(start, start := start + len(part.linear))
            rows = part.dense_rows(spec.needs)
            gamma = trust(spec, rows) if known is None else known.gamma[inside]
            target = design(spec, rows, gamma)
            self._report(number, spec, gamma, target, rows, -expectation(rows.probs, part.logprobs).clamp(max=0))
            if gradient is not None:
                slope = None if self.call.head.softcap is None else self.call.head.cap_slope(part.logits)
                write_gradient(target, gradient[inside])
                if slope is not None:
                    gradient[inside] *= slope
        if wanted and gradient is not None:
            self.gradients.add_dense(number, chunk.index, gradient)

    def _row_forms(self, chunk: Chunk, known: dict[int, _Trust]) -> None:
        call, index = self.call, chunk.index
        coarse = chunk.coarse(self.columns.select(index))
        spread, lead = coarse.entropy(), coarse.label_margins()
        forms = {}
        for number, spec in self.plan.row_form:
            scalars = call.tokens.scalars(index, coarse.label_logprobs, spec.gamma.needs, call.head.vocab, lead)
            given = known.get(number) or _Trust(trust(spec, scalars))
            uniform = spec.residual_acts and isinstance(spec.residual, Uniform)
            forms[number], target = row_form(
                spec,
                coarse,
                coarse.rows(scalars),
                given.gamma,
                label_loss=given.label_loss,
                mean_logit=call.head.mean_logit(chunk.hidden) if uniform else None,
                real_vocab=call.head.real_vocab,
            )
            self._report(number, spec, given.gamma, target, scalars, spread)
        self.gradients.add_forms(index, coarse, forms)

    def _report(
        self, number: int, spec: TargetSpec, gamma: Tensor, target: Design, rows: LabelRows, spread: Tensor
    ) -> None:
        counted = count(spec, gamma, target.weight, rows.weights)
        result = TokenResults(target.value, rows.label_probs, spread, counted)
        self.results[number].append(result)


def _joined(parts: list[LabelRows]) -> LabelRows:
    given = [field.name for field in fields(LabelRows) if getattr(parts[0], field.name) is not None]
    return LabelRows(**{name: torch.cat([getattr(part, name) for part in parts]) for name in given})
