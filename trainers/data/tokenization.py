"""From the text of a demonstration to tokens: which are learnt, and which of those are critical.

The tokens before an answer are exactly those that generation starts from: where tokenising all at once would merge
characters across that border, the parts are tokenised apart, and joined so that no space comes in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...spaces.errors import UserError
from ..models.tokens import around, end_of_sequence, without
from .demonstrations import Demonstration
from .messages import FIELD, refused
from .notes import Notes
from .template import ChatTemplate, RenderedTurn
from .turns import Known, PlainText, Span, Turn, WeightedSpan, check_spans, shifted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", ".", "0", "a", ":")
"""Texts that an answer is tokenised behind, where a tokenizer would put a space before its first word."""
SEAM = "the tokenizer puts a space between prompt and completion that generation does not; end the prompt without one"


def tokenize(template: ChatTemplate, turns: Sequence[Turn], notes: Notes) -> list[Demonstration]:
    """Demonstrations of a list of turns; a turn is several where its template shows earlier answers otherwise."""
    marked = any(turn.known.marks for turn in turns)
    if marked and not template.tokenizer.is_fast:
        raise UserError(
            "spans of characters need a fast tokenizer (it maps them to tokens), but "
            f"{type(template.tokenizer).__name__} is a slow one; use a model with a tokenizer.json, or numbers a token",
            field="data.weight_column",
        )
    encoder = _Encoder(template.tokenizer, offsets=marked, notes=notes)
    rendered = [item for turn in turns for item in _rendered(template, turn, notes)]
    return encoder.demonstrations(rendered)


def _rendered(template: ChatTemplate, turn: Turn, notes: Notes) -> list[RenderedTurn]:
    return [_plain(template.tokenizer, turn, notes)] if isinstance(turn, PlainText) else template.turns(turn, notes)


def _plain(tokenizer: PreTrainedTokenizerBase, turn: PlainText, notes: Notes) -> RenderedTurn:
    """Plain text ends with the end-of-sequence token; a whole text may have both ends of a sequence already."""
    last = end_of_sequence(tokenizer)
    begin, end = str(tokenizer.bos_token or ""), "" if last is None else str(tokenizer.convert_ids_to_tokens(last))
    if begin and turn.prompt.startswith(begin) and tokenizer(begin)["input_ids"][:2] == [tokenizer.bos_token_id] * 2:
        notes.count(f"a prompt begins with {begin}, which the tokenizer writes too: it is learnt twice", turn.place)
    completion = turn.completion
    if turn.whole:
        completion = completion.removesuffix(end).removeprefix(begin) if begin else completion.removesuffix(end)
    text, start = turn.prompt + completion + end, len(turn.prompt)
    check_spans(turn.known, completion, turn.place)
    return RenderedTurn(text, ((start, len(text)),), turn.place, plain=True, known=turn.known.moved(start))


@dataclass(frozen=True)
class _Encoding:
    ids: list[int]
    offsets: list[Span] | None

    def __add__(self, other: _Encoding) -> _Encoding:
        both = None if self.offsets is None or other.offsets is None else self.offsets + other.offsets
        return _Encoding(self.ids + other.ids, both)


@dataclass(frozen=True)
class _Encoder:
    tokenizer: PreTrainedTokenizerBase
    offsets: bool
    notes: Notes

    def demonstrations(self, items: Sequence[RenderedTurn]) -> list[Demonstration]:
        """Of rendered turns, all of one kind at once."""
        found: dict[int, Demonstration] = {}
        for plain in (False, True):
            chosen = [number for number, item in enumerate(items) if item.plain is plain]
            wholes = self([items[number].text for number in chosen], special=plain)
            cuts = [_cuts(items[number]) for number in chosen]
            pieces = iter(
                self([items[n].text[:cut] for n, each in zip(chosen, cuts, strict=True) for cut in each], plain)
            )
            for number, whole, each in zip(chosen, wholes, cuts, strict=True):
                found[number] = self._demonstration(items[number], whole, {cut: next(pieces) for cut in each})
        return [found[number] for number in range(len(items))]

    def __call__(self, texts: list[str], special: bool) -> list[_Encoding]:
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=special, return_offsets_mapping=self.offsets, return_attention_mask=False
        )
        offsets = encoded["offset_mapping"] if self.offsets else [None] * len(texts)
        tail = around(self.tokenizer)[1] if special else []
        found = [without(ids, tail) for ids in encoded["input_ids"]]
        return [
            _Encoding(ids, None if spans is None else spans[: len(ids)])
            for ids, spans in zip(found, offsets, strict=True)
        ]

    def _demonstration(self, item: RenderedTurn, whole: _Encoding, upto: dict[int, _Encoding]) -> Demonstration:
        """`upto`: tokens of the text up to each border."""
        lengths = {cut: len(found.ids) for cut, found in upto.items()}
        if any(whole.ids[: lengths[cut]] != found.ids for cut, found in upto.items()):
            whole, lengths = self._apart(item, whole, upto)
        lengths[len(item.text)] = len(whole.ids)
        learnt = torch.zeros(len(whole.ids), dtype=torch.bool)
        for start, end in item.learnt:
            learnt[lengths[start] : lengths[end]] = True
        answers = [slice(lengths[start], lengths[end]) for start, end in item.learnt]
        columns = _columns(item.known, learnt, answers, whole.offsets, item.place)
        return Demonstration(torch.tensor(whole.ids, dtype=torch.int32), learnt, **columns, place=item.place)

    def _apart(
        self, item: RenderedTurn, whole: _Encoding, upto: dict[int, _Encoding]
    ) -> tuple[_Encoding, dict[int, int]]:
        """Tokens of the parts between the borders, one after the other, and how many there are at each border."""
        cuts = sorted(upto)
        joined = upto[cuts[0]]
        lengths = {cuts[0]: len(joined.ids)}
        for start, end in pairwise([*cuts, len(item.text)]):
            joined = joined + self._continued(item, whole, joined, start, end)
            lengths[end] = len(joined.ids)
        return joined, lengths

    def _continued(self, item: RenderedTurn, whole: _Encoding, before: _Encoding, start: int, end: int) -> _Encoding:
        """The tokens of text[start:end] as they follow those before it, so that together they are the text."""
        part = item.text[start:end]
        expected = self._text(whole.ids if end == len(item.text) else self([item.text[:end]], item.plain)[0].ids)
        for anchor in ("", *ANCHORS, *filter(None, (self.tokenizer.eos_token,))):
            head, both = self([anchor, anchor + part], special=False)
            rest = both.ids[len(head.ids) :]
            if both.ids[: len(head.ids)] == head.ids and self._text(before.ids + rest) == expected:
                return self._moved(both, len(head.ids), start - len(anchor))
        self.notes.count(SEAM, item.place)
        return self._moved(self([part], special=False)[0], 0, start)

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _moved(self, found: _Encoding, first: int, by: int) -> _Encoding:
        offsets = None if found.offsets is None else shifted(found.offsets[first:], by)
        return _Encoding(found.ids[first:], offsets)


def _cuts(item: RenderedTurn) -> list[int]:
    """Where answers begin, and where they end before the text does."""
    return sorted({border for span in item.learnt for border in span if border < len(item.text)})


def _columns(
    known: Known, learnt: Tensor, answers: Sequence[slice], offsets: Sequence[Span] | None, place: str
) -> dict[str, Tensor]:
    """`weights`, `critical` and `reference_logprobs` of a demonstration, (n,) each; what says nothing is left out.

    `learnt` (n,) bool; `answers` are the tokens of each learnt answer, `offsets` the characters of each token. Raises
    UserError for a list that has not one number a learnt token.
    """
    found = {}
    weights = torch.full(learnt.shape, known.weight)
    for tokens, weight in zip(answers, known.answers, strict=False):
        weights[tokens] *= weight
    if known.token_weights is not None:
        weights[learnt] *= _fitting(known.token_weights, learnt, place, "weight_column")
    if known.spans:
        assert offsets is not None
        weights *= torch.tensor([_of_span(known.spans, token) for token in offsets])
    if bool((weights[learnt] != 1).any()):
        found["weights"] = weights.where(learnt, 0.0)
    if known.critical is not None:
        assert offsets is not None
        marked = [any(_overlap(token, span) for span in known.critical) for token in offsets]
        found["critical"] = torch.tensor(marked, dtype=torch.bool) & learnt
    if known.logprobs is not None:
        logprobs = torch.zeros(learnt.shape)
        logprobs[learnt] = _fitting(known.logprobs, learnt, place, "reference_logprob_column")
        found["reference_logprobs"] = logprobs
    return found


def _of_span(spans: Sequence[WeightedSpan], token: Span) -> float:
    """The weight of a token's characters: that of the last span which touches them, 1 outside of all."""
    return next((weight for *span, weight in reversed(spans) if _overlap(token, span)), 1.0)


def _overlap(token: Span, span: Sequence[int]) -> bool:
    return token[0] < span[1] and span[0] < token[1]


def _fitting(values: Sequence[float], learnt: Tensor, place: str, key: str) -> Tensor:
    wanted = int(learnt.sum())
    if len(values) != wanted:
        raise refused(
            key, f"a list of {wanted} numbers, one a token that is learnt, its end included", place,
            f"{len(values)} numbers", "compute them with this tokenizer and template", f"{FIELD}.{key}",
        )  # fmt: skip
    return torch.tensor(values, dtype=torch.float32)
