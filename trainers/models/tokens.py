"""Tokens beyond a tokenizer's vocabulary: those added on request, what it writes by itself, and which end an answer.

Needs transformers alone: exports carry this file (`search/export/reading.py`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer
from transformers import GenerationConfig

ANSWER = "the answer"
TURNS = ({"role": "user", "content": "a question"}, {"role": "assistant", "content": ANSWER})


# --- added tokens


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Make each of `tokens` one token, which decoding keeps; one that was added before stays as it is."""
    known = tokenizer.get_added_vocab()
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens if token not in known])


@torch.no_grad()
def give_rows(model: Any, known: Collection[int], wanted: Collection[int]) -> None:
    """Rows of embedding and head for the ids in `wanted`; those that are new start at the mean of all others.

    `known`: ids of the tokenizer before tokens were added. A new token then starts as likely as an average one
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), and the same on every machine.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    needed = max(rows, max(wanted) + 1)
    if needed > rows:
        with torch.random.fork_rng(devices=[]):  # what the new rows are first filled with is drawn
            model.resize_token_embeddings(needed, mean_resizing=False)
    new = sorted({*wanted} - {*known} | {*range(rows, needed)})
    old = sorted(token for token in known if token < rows)
    head = model.get_output_embeddings()
    for values in (model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)):
        if values is not None and new:
            values[new] = values[old].double().mean(0).to(values.dtype)


# --- what a tokenizer writes around a text


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer writes before and behind any text: those of `<s>` and `</s>` in `<s> $A </s>`."""
    whole, text = (list(tokenizer(ANSWER, add_special_tokens=special)["input_ids"]) for special in (True, False))
    for start in range(len(whole) - len(text) + 1):
        if text and whole[start : start + len(text)] == text:
            return whole[:start], whole[start + len(text) :]
    return [], []


def without(ids: Sequence[int], tail: Sequence[int]) -> list[int]:
    """`ids` without `tail` at their end: a prompt goes on, so nothing may end it."""
    return list(ids[: -len(tail)] if tail and list(ids[-len(tail) :]) == list(tail) else ids)


def stop_appending(tokenizer: Any) -> None:
    """Let the tokenizer write nothing behind a text any more, where it can be told so."""
    (before, behind), backend = around(tokenizer), getattr(tokenizer, "backend_tokenizer", None)
    if not behind or backend is None:
        return
    described = json.loads(backend.to_str())
    if hasattr(tokenizer, "add_eos_token"):
        tokenizer.add_eos_token = False  # some classes write their template anew from it, now and when they are loaded
    former = described["post_processor"]
    kept = [part for part in former.get("processors", [former]) if part["type"] == "ByteLevel"]
    template = _template(dict(zip(tokenizer.convert_ids_to_tokens(before), before, strict=True)))
    described["post_processor"] = {"type": "Sequence", "processors": [*kept, template]}
    backend.post_processor = Tokenizer.from_str(json.dumps(described)).post_processor


def _template(before: dict[str, int]) -> dict[str, Any]:
    """A post-processor, as tokenizer.json describes it, that writes the tokens `before` a text."""
    start = [{"SpecialToken": {"id": token, "type_id": 0}} for token in before]
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    tokens = {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in before.items()}
    single, pair = [*start, first], [*start, first, second]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


# --- what ends an answer


def end_of_sequence(tokenizer: Any) -> int | None:
    """The token that ends a text: the tokenizer's own, or else the one that it writes behind every text."""
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    return next(reversed(around(tokenizer)[1]), None)


def end_of_turn(tokenizer: Any) -> int | None:
    """The first special token that the chat template writes after an assistant's message, if there is one."""
    text = _rendered(tokenizer, False)
    _, found, rest = text.rpartition(ANSWER)
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"] if found else []
    special = special_ids(tokenizer)
    return next((int(token) for token in ids if token in special), None)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of tokens that no ordinary text makes."""
    return set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", ()))


def end_tokens(model: Any, tokenizer: Any, *, chat: bool) -> frozenset[int]:
    """Ids that end an answer: the model's and the tokenizer's end of sequence, and the chat template's end of turn.

    A base model's end of sequence often is not what its chat template writes after an answer; without the latter a
    model fine-tuned through the template would never be seen to stop.
    """
    declared = getattr(model.generation_config, "eos_token_id", None)
    ids = {*(declared if isinstance(declared, Iterable) else [declared]), end_of_sequence(tokenizer)}
    if chat:
        ids.add(end_of_turn(tokenizer))
    return frozenset(int(token) for token in ids if token is not None)


def settle(model: Any, tokenizer: Any, ends: Collection[int], *, chat: bool) -> Any:
    """Let `model` end its answers at `ends` by itself, and give the tokenizer that belongs to it, a copy.

    The model's generation configuration then holds token ids alone: what it was to sample with belongs to the weights
    before the training, and `generate()` answers greedily, as our evaluations do unless they set a temperature. The
    tokenizer's end of sequence is the token that the training's answers ended with, unless its template needs another.
    """
    pad, one_or_more = tokenizer.pad_token_id, sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    if isinstance(pad, int) and pad >= model.get_input_embeddings().weight.shape[0]:
        pad = None
    make: Any = GenerationConfig
    model.generation_config = make(bos_token_id=tokenizer.bos_token_id, eos_token_id=one_or_more, pad_token_id=pad)
    model.config.eos_token_id = one_or_more
    settled = copy.deepcopy(tokenizer)
    end = end_of_turn(tokenizer) if chat else end_of_sequence(tokenizer)
    if end is not None and end != tokenizer.eos_token_id:
        settled.eos_token = tokenizer.convert_ids_to_tokens(end)
        if chat and any(_rendered(settled, each) != _rendered(tokenizer, each) for each in (False, True)):
            settled.eos_token = tokenizer.eos_token
    stop_appending(settled)
    return settled


def _rendered(tokenizer: Any, asking: bool) -> str:
    """A question, and its answer unless `asking`, through the template, with a system message where it wants one."""
    for system in ((), ({"role": "system", "content": "be kind"},)):
        turns = [*system, *(TURNS[:1] if asking else TURNS)]
        try:
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asking))
        except TemplateError:
            continue
    return ""
