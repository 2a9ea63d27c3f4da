"""Do demonstrations fit a model: a row for every token, a position for every input, an end that generation knows?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from ...spaces.errors import UserError
from ..models.tokens import end_of_sequence, special_ids
from .demonstrations import Demonstrations


def check_fit(data: Demonstrations, model: Any, tokenizer: Any, *, field: str = "model") -> None:
    """Raise UserError, with its row, for the first demonstration that the model cannot read or predict."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = min(layer.weight.shape[0] for layer in layers)
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    for number, example in enumerate(data):
        place = example.place or f"demonstration {number}"
        if (largest := int(example.token_ids.max())) >= rows:
            token = tokenizer.convert_ids_to_tokens(largest)
            raise UserError(
                f"every token of the data must have a row in the {field}, but {place} uses {token!r}, id {largest}, of "
                f"{rows} rows; add it to the model (`{field}.add_tokens: [{token!r}]`), or take a tokenizer that "
                "belongs to it",
                field=f"{field}.add_tokens",
            )
        if positions is not None and example.length > positions:
            raise UserError(
                f"a demonstration must fit the {positions} positions of the {field}, but {place} has "
                f"{example.length}; set `data.max_length` to {positions + 1} at most, which leaves longer ones out",
                field="data.max_length",
            )


@dataclass(frozen=True)
class Ends:
    """Where the answers that are learnt end, for people."""

    line: str
    notes: tuple[str, ...]
    """What is worth a look before a night is spent on them."""


def check_ends(
    data: Demonstrations, ends: Collection[int], tokenizer: Any, *, chat: bool, stop: Collection[str] | None
) -> Ends:
    """Where answers end.

    `ends`: ids that end a completion; `stop`: strings that do, None where nothing is generated. Raises UserError when
    nothing that is learnt ends an answer and no string does: every answer would be cut off at its longest.
    """
    special = set(ends) & (special_ids(tokenizer) | {end_of_sequence(tokenizer)})
    known = torch.tensor(sorted(special), dtype=torch.int32)
    found = [example.token_ids[example.learnt] for example in data]
    ending = [learnt[torch.isin(learnt, known)] for learnt in found]
    endless = [number for number, each in enumerate(ending) if not len(each)]
    if len(endless) == len(data) and stop is not None and not stop:
        raise _endless(chat)
    learnt = {int(token) for each in ending for token in each}
    line = f"{_named(learnt, tokenizer) or 'no token'} in {len(data) - len(endless)} of {len(data)} demonstrations"
    if unlearnt := special - learnt:
        line += f"; generation also stops at {_named(unlearnt, tokenizer)}"
    if stop:
        line += f", and at the text {', '.join(map(repr, stop))}"
    notes = []
    if endless and learnt:
        places = data[endless[0]].place or f"demonstration {endless[0]}"
        notes.append(f"{len(endless)} of {len(data)} demonstrations teach no end of an answer (first: {places})")
    if ordinary := set(ends) - special:
        notes.append(
            f"the model declares that {_named(ordinary, tokenizer)} ends an answer, which its tokenizer takes for "
            "ordinary text: mend `eos_token_id` in its generation_config.json"
        )
    return Ends(line, tuple(notes))


def _endless(chat: bool) -> UserError:
    cause, remedy = (
        ("the chat template writes no special token behind an answer", "give another `model.chat_template`")
        if chat
        else ("the tokenizer has no end of sequence", "take one that has, or train through a chat template")
    )
    return UserError(
        f"something must end an answer, but {cause}, and nothing else does; {remedy}, make one token of what ends it "
        "(`model.add_tokens`), or name it in `evaluation.stop`",
        field="model.chat_template" if chat else "data.chat",
    )


def _named(ids: Collection[int], tokenizer: Any) -> str:
    return ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token in sorted(ids))
