"""From a teacher's logits to what a cache keeps of each token.

Letters: T tokens, V vocabulary, K entries kept at most, N demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ...spaces.numerics import log_softmax
from ..data.batches import Batch
from .format import Array, CacheError, CacheKey, ShardArrays, pack_ids
from .sources import FrozenModel

ROW_CHUNK_BYTES = 2**27
"""Float32 log-probs held at once while logits are reduced."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """What is kept of T tokens; of token t the first `counts[t]` entries of a row."""

    ids: Tensor  # (T, K)
    logprobs: Tensor  # (T, K) descending, nats
    counts: Tensor  # (T,)
    log_tail: Tensor  # (T,) log of the probability outside the kept entries; -inf when there is none
    entropy: Tensor  # (T,) nats, of the whole distribution
    label_logprob: Tensor  # (T,) nats


FIELDS = [field.name for field in fields(TokenRows)]


def summarise(logits: Tensor, labels: Tensor, *, k: int, tail_mass: float = 0.0, min_prob: float = 0.0) -> TokenRows:
    """Keep the k likeliest entries of each row of logits (T, V); of these the fewest that leave at most `tail_mass`
    outside, and none below `min_prob` but the first.

    Nothing is lost to cancellation: the tail is the log-sum-exp of the entries left out, never 1 - sum(kept).
    """
    logprobs = log_softmax(logits.float())
    top, ids = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
    outside = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1)
    # left[:, n] = log of the probability outside the first n + 1 entries
    suffix = torch.cat([top[:, 1:], outside[:, None]], dim=-1).flip(-1).logcumsumexp(-1).flip(-1)
    most, least = (torch.tensor(limit, device=logits.device).log() for limit in (tail_mass, min_prob))
    wanted = (suffix > most).sum(-1) + 1
    counts = torch.minimum(wanted, (top >= least).sum(-1)).clamp(1, top.shape[-1])
    return TokenRows(
        ids=ids,
        logprobs=top,
        counts=counts,
        log_tail=suffix.gather(-1, counts[:, None] - 1)[:, 0],
        entropy=torch.special.entr(logprobs.exp()).sum(-1),
        label_logprob=logprobs.gather(-1, labels[:, None])[:, 0],
    )


def labels_alone(logits: Tensor, labels: Tensor) -> TokenRows:
    """What is kept of each row of logits (T, V) where designs look at the label alone: its log-probability."""
    scores = logits.float()
    label = scores.gather(-1, labels[:, None])[:, 0] - scores.logsumexp(-1)
    nothing, zero = scores.new_zeros(len(scores), 0), torch.zeros_like(label)
    return TokenRows(nothing.long(), nothing, zero.long(), zero, zero, label)


def _kept(logits: Tensor, labels: Tensor, key: CacheKey) -> TokenRows:
    if key.content == "label":
        return labels_alone(logits, labels)
    return summarise(logits, labels, k=key.k, tail_mass=key.tail_mass, min_prob=key.min_prob)


def teacher_rows(teacher: FrozenModel, batch: Batch, key: CacheKey) -> list[TokenRows]:
    """What is kept of the labelled tokens of a batch, one TokenRows a sequence. Raises CacheError for unfit logits."""
    hidden, labels, vocab = teacher.rows(batch).hidden, batch.flat_labels, teacher.head.weight.shape[0]
    if vocab < key.vocab:
        raise CacheError(
            f"the teacher must have a logit for each of the tokenizer's {key.vocab} entries, but has {vocab}; "
            "use a teacher that shares the student's tokenizer"
        )
    size = max(1, ROW_CHUNK_BYTES // (4 * vocab))
    parts = [
        _kept(teacher.head.logits(rows)[:, : key.vocab], part, key)
        for rows, part in zip(torch.split(hidden, size), torch.split(labels, size), strict=True)
    ]
    rows = TokenRows(*(torch.cat([getattr(part, name) for part in parts]).cpu() for name in FIELDS))
    if not bool(torch.isfinite(rows.entropy + rows.label_logprob).all()):
        raise CacheError(
            f"the teacher's logits must be finite, but on demonstrations {batch.indices.tolist()} some are NaN or "
            "infinite; check its weights, or run it in fp32"
        )
    return _split(rows, batch.valid.sum(-1).tolist())


def _split(rows: TokenRows, lengths: list[int]) -> list[TokenRows]:
    columns = [getattr(rows, name).split(lengths) for name in FIELDS]
    return [TokenRows(*parts) for parts in zip(*columns, strict=True)]


def shard_arrays(rows: Iterable[TokenRows], key: CacheKey) -> tuple[ShardArrays, float]:
    """One shard from its demonstrations' rows, in order; and the summed probability of the tails as stored."""
    parts = list(rows)
    lengths = np.array([len(part.counts) for part in parts], np.uint32)
    if key.content == "label":
        label = _stored([part.label_logprob for part in parts], key)[None]
        nothing = np.zeros(0, key.dtype)
        return ShardArrays(lengths, np.zeros(label.shape[1], np.uint16), label, nothing, np.zeros(0, np.uint8)), 0.0
    kept = [torch.arange(part.ids.shape[1]) < part.counts[:, None] for part in parts]
    scalars = _stored([torch.stack([part.log_tail, part.entropy, part.label_logprob]) for part in parts], key, dim=1)
    arrays = ShardArrays(
        lengths=lengths,
        counts=torch.cat([part.counts for part in parts]).numpy(),
        scalars=scalars,
        logprobs=_stored([part.logprobs[mask] for part, mask in zip(parts, kept, strict=True)], key),
        ids=pack_ids(torch.cat([part.ids[mask] for part, mask in zip(parts, kept, strict=True)]).numpy(), key.bits),
    )
    return arrays, float(np.exp(scalars[0].astype(np.float64)).sum())


def _stored(parts: list[Tensor], key: CacheKey, dim: int = 0) -> Array:
    return torch.cat(parts, dim=dim).numpy().astype(key.dtype)
