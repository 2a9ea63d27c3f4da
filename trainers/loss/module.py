"""The target loss as a module of somebody else's training loop: over hidden states and a head, or over logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...spaces import presets
from ...spaces.target import TargetSpec, count, design
from .dense import IGNORE_INDEX, dense_rows, dense_target_loss
from .fused import fused_target_loss

SOURCES = ("teacher", "reference", "previous")
"""Distributions that designs look at, aligned with the hidden states; everything else is aligned with the labels."""


class TargetLoss(nn.Module):
    """The loss of one design, as a mean over the tokens that the design divides by, or divided by `num_items`.

        loss = TargetLoss("dft")
        loss(hidden, model.lm_head, labels).backward()                       # never holds (tokens, vocab)
        loss(logits=logits, labels=labels, num_items=tokens).backward()

    Under gradient accumulation, and over several ranks, the mean of means is another loss where micro-batches have
    different numbers of tokens: pass `num_items`, what the whole optimiser step is divided by, to every call. For most
    designs that is its number of labels that are not -100; where `spec.denominator` is another than `all`, it is the
    sum of the divisors of `sum_and_divisor` over the micro-batches.
    """

    def __init__(
        self, spec: TargetSpec | str, *, shift: bool = False, real_vocab: int | None = None, **knobs: Any
    ) -> None:
        """`spec`: a design, or the name of a published objective with its `knobs`.

        Args:
            spec: the design.
            shift: labels are those of the inputs themselves, as tokenizers and collators give them, so that position t
                predicts label t + 1. Default: position t predicts label t.
            real_vocab: how many entries the tokenizer can produce; the rest of the head is padding. None: all.
            knobs: of the published objective.
        """
        super().__init__()
        self.spec = presets.get(spec, **knobs) if isinstance(spec, str) else spec
        self.shift, self.real_vocab = shift, real_vocab

    def forward(
        self,
        hidden: Tensor | None = None,
        head: nn.Linear | Tensor | None = None,
        labels: Tensor | None = None,
        *,
        logits: Tensor | None = None,
        num_items: Tensor | float | None = None,
        progress: float = 0.0,
        **given: Any,
    ) -> Tensor:
        """A scalar in nats, differentiable in the hidden states and the head, or in the logits.

        Args:
            hidden: (..., width), with `head`.
            head: the layer that turns hidden states into logits, or its weight (vocab, width).
            labels: (...) token ids, -100 = ignored.
            logits: (..., vocab), instead of `hidden` and `head`.
            num_items: what the sum is divided by; None: by their own divisor, to 0 where that is 0.
            progress: share of the training that is done, for designs with a schedule.
            given: what the design looks at (`spec.needs`): `teacher`, `reference`, `previous` (..., vocab) logits, and
                `old_logprobs`, `critical`, `sequence_ids`, `weights`, `gamma`, each (...) beside the labels.

        Raises:
            ValueError: shapes that do not fit, or something that the design needs and did not get.
        """
        total, divisor = self.sum_and_divisor(hidden, head, labels, logits=logits, progress=progress, **given)
        items = divisor if num_items is None else torch.as_tensor(num_items, device=total.device)
        return torch.where(items > 0, total / items.clamp(min=torch.finfo(torch.float32).tiny), 0 * total)

    def sum_and_divisor(
        self,
        hidden: Tensor | None = None,
        head: nn.Linear | Tensor | None = None,
        labels: Tensor | None = None,
        *,
        logits: Tensor | None = None,
        progress: float = 0.0,
        **given: Any,
    ) -> tuple[Tensor, Tensor]:
        """The summed loss, and what these tokens add to its divisor (detached); arguments as in `forward`."""
        if labels is None or (logits is None) == (hidden is None or head is None):
            raise ValueError("the loss must get `labels`, and either `hidden` and `head` or `logits`; pass one of both")
        states = hidden if logits is None else logits
        assert states is not None
        states, labels, given = self._aligned(states, labels, given)
        spec = self.spec.at(progress)
        if logits is not None:
            return self._of_logits(states, labels, spec, given)
        weight, bias = (head, None) if isinstance(head, Tensor) else (head.weight, head.bias)  # type: ignore[union-attr]
        found = fused_target_loss(
            states, weight, labels, spec, bias=bias, real_vocab=self.real_vocab,
            **{name: _logprobs(value) if name in SOURCES else value for name, value in given.items()},
        )  # fmt: skip
        assert found.denominator is not None
        return found.loss_sum, found.denominator

    def _of_logits(
        self, logits: Tensor, labels: Tensor, spec: TargetSpec, given: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        named = {f"{name}_logits" if name in SOURCES else name: value for name, value in given.items()}
        total = dense_target_loss(logits, labels, spec, real_vocab=self.real_vocab, **named)
        valid = labels != IGNORE_INDEX
        if spec.denominator == "all":
            weights = given.get("weights")
            return total, valid.sum().float() if weights is None else weights[valid].sum()
        with torch.no_grad():
            dense = {name: given.get(name) for name in SOURCES}
            columns = {name: value for name, value in given.items() if name not in (*SOURCES, "gamma")}
            rows = dense_rows(logits.detach(), labels, valid, dense, columns, self.real_vocab)
            gamma = given["gamma"][valid] if "gamma" in given else spec.gamma.trust(rows)
            found = design(spec, rows, gamma)
            return total, count(spec, gamma, found.weight, rows.weights).sum()

    def _aligned(self, states: Tensor, labels: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """One row a token, position and label together; which sequence each belongs to, where nobody says it."""
        if states.shape[:-1] != labels.shape:
            raise ValueError(
                f"hidden states or logits must be (..., width) for labels (...), but got {tuple(states.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if self.shift and labels.ndim < 2:
            raise ValueError(
                f"`shift` needs labels of sequences, (sequences, positions), but got {tuple(labels.shape)}; shift them "
                "yourself, within each sequence"
            )
        given = {name: value for name, value in given.items() if value is not None}
        if "sequence_ids" not in given and labels.ndim > 1:
            numbers = torch.arange(labels.numel() // labels.shape[-1], device=labels.device)
            given["sequence_ids"] = numbers.unsqueeze(1).expand(-1, labels.shape[-1]).reshape(labels.shape)
        rows = {name: self._rows(value, labels.ndim, ahead=name not in SOURCES) for name, value in given.items()}
        flat = self._rows(labels.to(states.device), labels.ndim, ahead=True)
        return self._rows(states, labels.ndim, ahead=False), flat, rows

    def _rows(self, values: Any, dims: int, *, ahead: bool) -> Any:
        """Of (..., rest) one row a token; what belongs to labels is one position ahead under `shift`."""
        if not isinstance(values, Tensor):
            return values
        if self.shift:
            values = values.narrow(dims - 1, 1 if ahead else 0, values.shape[dims - 1] - 1)
        return values.flatten(0, dims - 1)

    def extra_repr(self) -> str:
        return self.spec.title()


def _logprobs(logits: Any) -> Any:
    """Whole distributions as the fused loss takes them."""
    if not isinstance(logits, Tensor):
        return logits
    return torch.log_softmax(logits.detach().float() if logits.dtype != torch.float64 else logits.detach(), -1)
