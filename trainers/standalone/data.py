"""Reads demonstrations of an exported design, as the search did: `target_data.py` beside `train_trl.py`.

Settings are plain dictionaries, as `winner.yaml` holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORE_INDEX = -100
"""Label of a token without a loss."""
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def turn(row: dict[str, Any], data: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Messages before the answer, and the answer."""
    columns = data.get("messages_column") or (
        "messages" if "messages" in row and not (data.get("prompt_column") or data.get("completion_column")) else None
    )
    if columns:
        messages = [{key: value for key, value in each.items() if value is not None} for each in row[columns]]
        last = max(index for index, each in enumerate(messages) if each["role"] == "assistant")
        return messages[:last], messages[last]["content"]
    prompt, answer = row[data.get("prompt_column") or "prompt"], row[data.get("completion_column") or "completion"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return messages, answer if isinstance(answer, str) else answer[0]["content"]


def tokenized(row: dict[str, Any], data: dict[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    """Token ids, which of them are learnt, and which of those are critical."""
    messages, answer = turn(row, data)
    if data["chat"]:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        both = [*messages, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(both, tokenize=False)
    else:
        prompt = "".join(each["content"] for each in messages)
        text = prompt + answer + (tokenizer.eos_token or "")
    special = not data["chat"]
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=tokenizer.is_fast)
    start = tokenizer(prompt, add_special_tokens=special)["input_ids"]
    ids, offsets = list(found["input_ids"]), found.get("offset_mapping")
    if ids[: len(start)] != list(start):  # never merge characters across the border: generation starts there
        rest = tokenizer(text[len(prompt) :], add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
        ids = [*start, *rest["input_ids"]]
        shifted = [(a + len(prompt), b + len(prompt)) for a, b in rest.get("offset_mapping", [])]
        offsets = [(0, 0)] * len(start) + shifted
    learnt = [index >= len(start) for index in range(len(ids))]
    critical = [0] * len(ids)
    if data.get("critical_column"):
        at = (
            text.find(answer.strip(), len(prompt)) - (len(answer) - len(answer.lstrip()))
            if data["chat"]
            else len(prompt)
        )
        spans = [(a + at, b + at) for a, b in row[data["critical_column"]]]
        critical = [
            int(on and any(a < q and p < b for p, q in spans)) for (a, b), on in zip(offsets, learnt, strict=True)
        ]
    labels = [token if on else IGNORE_INDEX for token, on in zip(ids, learnt, strict=True)]
    return {"input_ids": ids, "labels": labels, "critical": critical}


def demonstrations(data: dict[str, Any], tokenizer: Any, base: Path) -> Any:
    """The tokenised data set: what is too long is left out, then `max_examples` are drawn by their content."""
    place = base / data["path"]
    if place.is_file():
        kind = FORMATS[place.suffix]
        rows = load_dataset(kind, data.get("name"), data_files=str(place), split=data["split"])
    else:
        rows = load_dataset(str(place) if place.exists() else data["path"], data.get("name"), split=data["split"])
    rows = rows.map(lambda row: tokenized(row, data, tokenizer), remove_columns=rows.column_names)
    rows = rows.filter(lambda row: len(row["input_ids"]) <= data["max_length"] and max(row["labels"][1:]) >= 0)
    if data.get("max_examples") and data["max_examples"] < len(rows):
        ranked = sorted(range(len(rows)), key=lambda index: _content(rows[index], bool(data.get("critical_column"))))
        rows = rows.select(sorted(ranked[: data["max_examples"]]))
    return rows


def _content(row: dict[str, Any], marked: bool) -> bytes:
    """The rank of a demonstration, by a hash of its content."""
    ids, learnt = torch.tensor(row["input_ids"], dtype=torch.int32), torch.tensor(row["labels"]) != IGNORE_INDEX
    digest = hashlib.sha256(len(ids).to_bytes(8, "little") + ids.numpy().tobytes() + learnt.numpy().tobytes())
    digest.update(torch.tensor(row["critical"]).bool().numpy().tobytes() if marked else b"-")
    return hashlib.sha256(b"max_examples" + digest.digest()).digest()


def collate(rows: list[dict[str, Any]], pad: int = 0) -> dict[str, Tensor]:
    """Sequences padded on the right, where no token with a label can see it: no attention mask is needed."""

    def stack(name: str, fill: int) -> Tensor:
        return pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=fill)

    columns = {"input_ids": stack("input_ids", pad), "labels": stack("labels", IGNORE_INDEX)}
    return columns | {"critical": stack("critical", 0)}


class Order(torch.utils.data.Sampler[int]):
    """The data order of the search: a permutation an epoch, cut into optimiser steps, the longest first in each."""

    def __init__(self, lengths: list[int], effective_batch: int, steps: int, seed: int) -> None:
        self.lengths, self.effective_batch, self.steps, self.seed = lengths, effective_batch, steps, seed

    def __len__(self) -> int:
        return self.steps * self.effective_batch

    def __iter__(self) -> Iterator[int]:
        stream = self._stream()
        for _ in range(self.steps):
            chosen = list(islice(stream, self.effective_batch))
            yield from sorted(chosen, key=lambda index: (-self.lengths[index], index))

    def _stream(self) -> Iterator[int]:
        for epoch in count():
            names = json.dumps(["data order", str(self.seed), str(epoch)], separators=(",", ":"))
            seed = int.from_bytes(hashlib.sha256(names.encode()).digest()[:8], "big") >> 1
            yield from torch.randperm(len(self.lengths), generator=torch.Generator().manual_seed(seed)).tolist()
