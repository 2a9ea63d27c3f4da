"""The gradients of one call, gathered chunk by chunk while its logits are at hand.

A chunk arrives as dL/dz = s⊙G + b·1 with a row scale s (R,) and perhaps a constant b (R,) on the real entries. The
scale never touches (R, V) and the constant is rank one: dX = s⊙(G·W) + b·colsum(W), dW = Gᵀ·(s⊙X) + 1·(bᵀX).

Letters: T valid tokens, R rows of a chunk, C entries, V vocabulary, H width, D designs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .head import Head, compute_dtype, multiply, multiply_add
from .row_form import CoarseRows, RowForm


@dataclass(frozen=True)
class Wanted:
    """Which gradients a call must produce; a frozen head skips its GEMM."""

    hidden: bool
    weight: bool
    bias: bool

    def __bool__(self) -> bool:
        return self.hidden or self.weight or self.bias


class Gradients(Protocol):
    """What takes the gradients of each chunk, by the number of the design."""

    def add_dense(self, number: int, chunk: slice, gradient: Tensor) -> None:
        """dL/d(linear logits) as (R, V)."""

    def add_forms(self, chunk: slice, coarse: CoarseRows, forms: dict[int, RowForm]) -> None:
        """The row forms of all designs, which share one tail."""


class NoGradients:
    """Nobody asked for a gradient."""

    def add_dense(self, number: int, chunk: slice, gradient: Tensor) -> None:
        pass

    def add_forms(self, chunk: slice, coarse: CoarseRows, forms: dict[int, RowForm]) -> None:
        pass


class HeadGradients:
    """One design: `hidden` (T, H), `weight` (V, H) and `bias` (V,), the latter two added up in float32 (float64)."""

    def __init__(self, source: Tensor, head: Head, wanted: Wanted) -> None:
        dtype = compute_dtype(source.dtype)
        self._source, self._head = source, head
        self.hidden = torch.empty_like(source) if wanted.hidden else None
        # The first chunk writes the head's gradient, so that it need not be cleared before; no chunk, no first one.
        make = torch.empty_like if len(source) else torch.zeros_like
        self.weight = make(head.weight, dtype=dtype) if wanted.weight else None
        self.bias = source.new_zeros(head.vocab, dtype=dtype) if wanted.bias else None

    def add_dense(self, number: int, chunk: slice, gradient: Tensor) -> None:
        self._add(chunk, gradient, gradient.new_ones(len(gradient)))

    def add_forms(self, chunk: slice, coarse: CoarseRows, forms: dict[int, RowForm]) -> None:
        for form in forms.values():
            gradient, scale = form.fold(coarse, self._head)
            self._add(chunk, gradient, scale)
            if form.constant is not None:
                self._add_constant(chunk, form.constant * self._head.logit_scale)

    def _add(self, chunk: slice, gradient: Tensor, scale: Tensor) -> None:
        rows = self._source[chunk]
        column = (scale * self._head.logit_scale)[:, None]
        factor = gradient.to(rows.dtype)
        if self.hidden is not None:
            self.hidden[chunk] = multiply(factor, self._head.weight).mul_(column)
        if self.weight is not None:
            combine = multiply if chunk.start == 0 else multiply_add
            combine(factor.T, (rows * column).to(rows.dtype), self.weight)
        if self.bias is not None:
            self.bias.addmv_(gradient.to(self.bias.dtype).T, column[:, 0])

    def _add_constant(self, chunk: slice, constant: Tensor) -> None:
        real = self._head.real_vocab
        if self.hidden is not None:
            self.hidden[chunk] += (constant[:, None] * self._head.weight_sum).to(self.hidden.dtype)
        if self.weight is not None:
            self.weight[:real] += constant @ self._source[chunk].to(constant.dtype)
        if self.bias is not None:
            self.bias[:real] += constant.sum()


class SharedGradients:
    """D designs over one frozen head: `hidden` (D, T, H).

    P·W does not depend on the design, so one GEMM serves all; each design adds its entries, a product of (C,) values
    with C rows of the head that are gathered once.
    """

    def __init__(self, source: Tensor, head: Head, designs: int) -> None:
        self._head = head
        self.hidden = source.new_empty((designs, *source.shape))

    def add_dense(self, number: int, chunk: slice, gradient: Tensor) -> None:
        low = gradient.to(self.hidden.dtype)
        self.hidden[number, chunk] = multiply(low, self._head.weight).mul_(self._head.logit_scale)

    def add_forms(self, chunk: slice, coarse: CoarseRows, forms: dict[int, RowForm]) -> None:
        weight, scale = self._head.weight, self._head.logit_scale
        shared = multiply(coarse.tail.shape.to(weight.dtype), weight)
        values = torch.stack([form.values_before_cap(coarse, self._head) for form in forms.values()], dim=1)
        at_entries = torch.bmm(values.to(weight.dtype), weight[coarse.columns.ids]).to(shared.dtype)
        for place, (number, form) in enumerate(forms.items()):
            gradient = torch.addcmul(at_entries[:, place], form.scale[:, None], shared)
            if form.constant is not None:
                gradient += form.constant[:, None] * self._head.weight_sum
            self.hidden[number, chunk] = gradient.mul_(scale)
