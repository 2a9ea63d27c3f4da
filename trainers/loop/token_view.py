"""What a design says about real tokens: trust, target and alternatives at each token of some demonstrations.

Letters: T tokens of one demonstration, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ...spaces.numerics import log_softmax
from ...spaces.rows import LabelRows, Rows
from ...spaces.target import TargetSpec, design, trust
from ..data.batches import collate
from ..data.demonstrations import Demonstration, Demonstrations
from ..loss.dense import dense_rows
from ..loss.residual_source import CachedSlice, HiddenHead, LabelOnly, ResidualSource, top_entries, widen
from ..models.head import OutputHead, hidden_states, output_head
from ..teachers.sources import Source

EXAMPLES, TOKENS, ALTERNATIVES = 16, 160, 4
"""Demonstrations looked at, tokens with a loss shown of each, and entries of each distribution."""


@dataclass(eq=False)
class TokenView:
    """A design on the demonstrations of a study."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    data: Demonstrations
    target: TargetSpec
    sources: dict[str, Source | None]
    """`teacher` and `reference`; None where there is none. They are shown even if the design does not look at them."""
    real_vocab: int | None = None

    @torch.no_grad()
    def choose(self, progress: float, examples: int = 4) -> list[int]:
        """Numbers of `examples` demonstrations, from the least to the most trusted."""
        gammas = self._gammas(self.target.at(progress))
        ranked = sorted(gammas, key=lambda number: float(gammas[number].mean()))
        places = sorted({round(place) for place in torch.linspace(0, len(ranked) - 1, examples).tolist()})
        return [ranked[place] for place in places]

    @torch.no_grad()
    def show(self, numbers: Sequence[int], progress: float) -> list[list[dict[str, Any]]]:
        """The tokens of demonstrations among the first `EXAMPLES`, as JSON data, with the model as it is now.

        A token has its text, p and γ of the label, q (the target's mass on it), and the most probable entries
        [text, probability] of student and target, and of teacher and reference where there are any. A design that
        looks at whole batches sees the first `EXAMPLES` demonstrations as one; `progress` is that of the training.
        """
        spec = self.target.at(progress)
        gammas = self._gammas(spec)
        return [self._tokens(spec, number, gammas[number]) for number in numbers]

    def prompt(self, number: int) -> str:
        """What comes before the first token with a loss."""
        example = self.data[number]
        return str(self.tokenizer.decode(example.token_ids[: int(example.completion.int().argmax())].tolist()))

    def _gammas(self, spec: TargetSpec) -> dict[int, Tensor]:
        self.model.eval()
        numbers = range(min(EXAMPLES, len(self.data)))
        if spec.gamma.scope == "token":
            return {number: trust(spec, self._rows(number)) for number in numbers}
        batch = [self._rows(number) for number in numbers]
        gamma = torch.split(trust(spec, _joined(batch)), [len(rows.label_logprobs) for rows in batch])
        return dict(zip(numbers, gamma, strict=True))

    def _rows(self, number: int) -> Rows:
        """Everything a design may look at on the first tokens of a demonstration."""
        batch = collate([_cut(self.data[number])], [number], 0).to(next(self.model.parameters()).device)
        labels = batch.flat_labels
        logits = output_head(self.model).logits(batch.select(hidden_states(self.model, batch.inputs)))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        student = log_softmax(logits)
        asked = {name: source.rows(batch) for name, source in self.sources.items() if source is not None}
        at_label = {name: rows.logprobs[: len(labels)] for name, rows in asked.items() if isinstance(rows, LabelOnly)}
        given = {name: _dense(rows, labels, student) for name, rows in asked.items() if name not in at_label}
        columns = {
            "old_logprobs": student.gather(1, labels[:, None]).squeeze(1),
            "critical": batch.flat_critical,
            "sequence_ids": torch.full_like(labels, number),
            "weights": batch.flat_weights,
            **{f"{name}_label_logprobs": logprobs for name, logprobs in at_label.items()},
        }
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        return dense_rows(logits, labels, everywhere, {**given, "previous": logits}, columns, self.real_vocab)

    def _tokens(self, spec: TargetSpec, number: int, gamma: Tensor) -> list[dict[str, Any]]:
        rows = self._rows(number)
        target = design(spec, rows, gamma.to(rows.label_logprobs))
        assert rows.labels is not None and rows.logprobs is not None
        shown = {"student": rows.probs, "target": target.q}
        others = {"teacher": rows.teacher_logprobs, "reference": rows.reference_logprobs}
        shown |= {name: logprobs.exp() for name, logprobs in others.items() if logprobs is not None}
        tops = {name: self._top(probs) for name, probs in shown.items()}
        label_q = target.q.gather(1, rows.labels[:, None]).squeeze(1)
        return [
            {
                "text": self._text(label),
                "p": _rounded(p),
                "gamma": _rounded(trusted),
                "q": _rounded(q),
                **{name: top[place] for name, top in tops.items()},
            }
            for place, (label, p, trusted, q) in enumerate(
                zip(rows.labels.tolist(), rows.label_probs.tolist(), gamma.tolist(), label_q.tolist(), strict=True)
            )
        ]

    def _top(self, probs: Tensor) -> list[list[list[Any]]]:
        """The largest entries of each row."""
        best = probs.topk(min(ALTERNATIVES, probs.shape[1]), dim=1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [
            [[self._text(token), _rounded(share)] for token, share in zip(ids, shares, strict=True) if share > 1e-4]
            for ids, shares in pairs
        ]

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))


def _dense(source: ResidualSource, labels: Tensor, student: Tensor) -> Tensor:
    """(T, V) logits of a source; log-probabilities are logits. A cache holds whole demonstrations: its end is cut."""
    if isinstance(source, CachedSlice):
        return widen(top_entries(source.select(slice(0, len(labels))), labels, student.dtype), student)
    if isinstance(source, HiddenHead):
        return OutputHead(source.weight, source.bias, source.softcap, source.logit_scale).logits(source.hidden)
    assert isinstance(source, Tensor)
    return source


def _cut(example: Demonstration) -> Demonstration:
    """The demonstration up to its `TOKENS`-th token with a loss."""
    return example.cut(int((example.learnt.cumsum(0) <= TOKENS).sum()))


def _joined(batch: Sequence[Rows]) -> LabelRows:
    """The scalars of all tokens of a batch; what any demonstration lacks is left out."""
    names = LabelRows.__dataclass_fields__
    columns = {name: [getattr(rows, name) for rows in batch] for name in names}
    whole = {name: torch.cat(parts) for name, parts in columns.items() if all(part is not None for part in parts)}
    return LabelRows(**whole)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
