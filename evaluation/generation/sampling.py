"""Choosing the next token: greedy, or Gumbel-max with noise that is a pure function of its coordinates.

argmax_v (z_v / temperature + g_v), with g_v independent standard Gumbel noise, is a draw from softmax(z / temperature)
(Gumbel 1954; Maddison et al. 2014, https://arxiv.org/abs/1411.0030). Here g_v is a hash of (sequence key, position,
token): no generator has a state, so a completion does not depend on what else is in its batch or on a restart, and two
models that answer the same problem share their randomness, which makes their difference a paired one.

Letters: B sequences, V vocabulary.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ...spaces.identity import derive_seed

_WORD = 0xFFFFFFFF
_LARGEST_BELOW_ONE = 1.0 - 2.0**-24


def sequence_key(seed: int, problem_id: str, sample: int) -> int:
    """The 63-bit key of one completion's noise. Equal for all models, so that they share their randomness."""
    return derive_seed("generation", seed, problem_id, sample)


def choose(logits: Tensor, temperature: float, keys: Tensor, positions: Tensor) -> Tensor:
    """The next token of each sequence, (B,) int64, from its logits (B, V).

    `keys` (B,) int64 as made by `sequence_key`; `positions` (B,) int64, the number of tokens generated so far.
    A temperature of 0 is greedy. The comparison is made in float32 whatever the model's precision.
    """
    logits = logits.float()
    if temperature == 0:
        return logits.argmax(dim=-1)
    return gumbel(keys, positions, logits.shape[-1]).add_(logits, alpha=1.0 / temperature).argmax(dim=-1)


def gumbel(keys: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """Standard Gumbel noise (B, V), float32: -log E with E = -log(1 - u) exponential.

    Large noise comes from u near 0, where float32 is dense: the upper tail, which decides the argmax, is exact to
    u = 2^-32 (noise 22.2). The lower tail ends at u = 1 - 2^-24.
    """
    exponential = torch.log1p(-uniform(keys, positions, vocab)).neg_()
    return exponential.log_().neg_()


def uniform(keys: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """Uniform noise (B, V) in (0, 1), float32, from 31 hashed bits.

    The mixer is triple32 (Wellons, https://github.com/skeeto/hash-prospector) on wrapping 32-bit integers, with one
    word of the row's 64-bit state added before its first round and one after it: two rows agree only where all 64 bits
    do.
    """
    first, second = _row_words(keys, positions)
    word = _token_words(vocab, keys.device) + first[:, None]
    _round(word, 17, 0xED5AD4BB)
    word += second[:, None]
    _round(word, 11, 0xAC4C1B51)
    _round(word, 15, 0x31848BAB)
    word.bitwise_xor_(_shift(word, 14)).bitwise_and_(0x7FFFFFFF)
    return word.float().add_(0.5).mul_(2.0**-31).clamp_(max=_LARGEST_BELOW_ONE)


def _row_words(keys: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Two int32 words a row: splitmix64 (Steele et al. 2014) of the key and the position."""
    state = keys + positions * _signed(0x9E3779B97F4A7C15, 64)
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9, 64)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB, 64)
    state = state ^ _shift(state, 31)
    return _as_int32(state & _WORD), _as_int32(_shift(state, 32))


@lru_cache(maxsize=4)
def _token_words(vocab: int, device: torch.device) -> Tensor:
    """(V,) int32: the token index times an odd constant, so that neighbours differ in all bits."""
    tokens = torch.arange(vocab, dtype=torch.int64, device=device)
    return _as_int32((tokens * 0x9E3779B1) & _WORD)


def _round(word: Tensor, shift: int, multiplier: int) -> None:
    """word = (word ^ word >>> shift) · multiplier, in place. Multiplication of int32 tensors wraps."""
    word.bitwise_xor_(_shift(word, shift)).mul_(_signed(multiplier, 32))


def _shift(word: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    width = 64 if word.dtype == torch.int64 else 32
    return (word >> bits).bitwise_and_((1 << (width - bits)) - 1)


def _signed(word: int, width: int) -> int:
    """A constant of `width` bits as torch's signed integers hold it."""
    return word - (1 << width) if word >> (width - 1) else word


def _as_int32(word: Tensor) -> Tensor:
    """The low 32 bits (given as 0 ≤ word < 2^32 in int64) as a signed int32."""
    return torch.where(word > 0x7FFFFFFF, word - (1 << 32), word).to(torch.int32)
