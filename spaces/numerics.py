"""The delicate arithmetic in one place: what 0·∞ means, and rows without support.

Letters: T tokens, V vocabulary. All inputs are detached float32 or float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO_LIMIT = 1e4
"""Log-ratios are held inside ± this many nats: far beyond any real one, and sums of them stay finite."""


def product(coefficient: Tensor, value: Tensor) -> Tensor:
    """`coefficient · value` with 0·(±∞) = 0: what has no weight costs nothing."""
    import torch

    return torch.where(coefficient == 0, torch.zeros_like(coefficient), coefficient * value)


def expectation(weights: Tensor, values: Tensor) -> Tensor:
    """Σ_v weights(v)·values(v) with 0·(±∞) = 0; (T, V) and (T, V) give (T,).

    On a CPU the plain products come first; where one is 0·(±∞), all are made again with care.
    """
    if not weights.is_cuda:
        total = (weights * values).sum(-1)
        if not total.isnan().any():
            return total
    return product(weights, values).sum(-1)


def entropy(logprobs: Tensor) -> Tensor:
    """H = −Σ π log π in nats, never negative; (T, V) gives (T,)."""
    return -expectation(logprobs.exp(), logprobs).clamp(max=0)


def power(log_base: Tensor, exponent: float | Tensor) -> Tensor:
    """exp(exponent · log_base) with x⁰ = 1 also at x = 0, shape of `log_base`."""
    import torch

    # Filled where the base is: a tensor made from a number elsewhere would have to wait for the device.
    exponents = exponent if isinstance(exponent, torch.Tensor) else torch.full_like(log_base, exponent)
    return product(exponents.expand_as(log_base), log_base).exp()


def box_cox(log_p: Tensor, exponent: float) -> Tensor:
    """(1 − p^α)/α, and its limit −log p at α = 0; at p = 0 it is 1/α. Exact for small α·log p."""
    import torch

    return -log_p if exponent == 0 else -torch.expm1(exponent * log_p) / exponent


def log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """log(a/b) held inside ±LOG_RATIO_LIMIT; two impossible events have ratio 1."""
    return (numerator - denominator).nan_to_num(nan=0.0).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def log_softmax(scores: Tensor) -> Tensor:
    """scores − log Σ exp(scores) over the last dimension, shape kept.

    torch's own adds float32 exponentials one after another on a CPU: over 49,152 entries log p is off by 1e-4, always
    to the same side, and so is every gradient that carries p as a factor. Its sum adds pairwise.
    """
    if scores.is_cuda:
        return scores.log_softmax(-1)
    shifted = scores - scores.amax(-1, keepdim=True)  # first: large scores would swallow the logarithm
    return shifted.sub_(shifted.exp().sum(-1, keepdim=True).log_())


def normalised(scores: Tensor, fallback: Tensor) -> Tensor:
    """softmax of log-scores (T, V); a row without any support takes the log-distribution of `fallback` instead."""
    import torch

    highest = scores.amax(-1, keepdim=True)
    empty = highest.isneginf()
    if scores.is_cuda or empty.any():
        scores = torch.where(empty, fallback, scores)
        highest = scores.amax(-1, keepdim=True)
    weights = (scores - highest).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))  # summed pairwise, as in `log_softmax`


def sequence_means(values: Tensor, sequence_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of `values` (T,) in each sequence: (number of sequences,), and each token's index into it (T,)."""
    import torch

    unique, index = torch.unique(sequence_ids, return_inverse=True)
    zeros = torch.zeros(len(unique), dtype=values.dtype, device=values.device)
    total = zeros.index_add(0, index, values)
    count = zeros.index_add(0, index, torch.ones_like(values))
    return total / count, index


def top_mask(probs: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """True for the kept tokens (T, V): the k largest, and of them the fewest that reach mass `top_p`."""
    import torch

    ranked, order = probs.sort(stable=True, dim=-1, descending=True)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if top_k is not None:
        keep[..., top_k:] = False
    if top_p is not None:
        keep &= ranked.cumsum(-1) - ranked < top_p
    return torch.zeros_like(keep).scatter(-1, order, keep)
