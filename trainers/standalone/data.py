"""Reads demonstrations of an exported design, as the search did: `target_data.py` beside `train_trl.py`.

Settings are plain dictionaries, as `winner.yaml` holds them. `target_reading/` reads the demonstrations.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import date
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from target_reading.load import load_demonstrations
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORE_INDEX = -100
"""Label of a token without a loss."""


def here(path: str) -> str:
    """`path` with `~` and `$NAME` as they are on this host."""
    return os.path.expandvars(os.path.expanduser(path))


def base_folder(winner: dict[str, Any], folder: Path) -> Path:
    """Where the winner's inputs lie: as seen from its file's `folder`, or where they were when it was written."""
    places, known = [(folder / here(winner["base"])).resolve()], winner.get("provenance") or {}
    if winner["base"] == known.get("base") and "beside" in known:  # unedited
        places.insert(0, (folder / known["beside"]).resolve())
    data = winner["data"]["path"]
    sources = [each["path"] if isinstance(each, dict) else each for each in ([data] if isinstance(data, str) else data)]
    paths = (*sources, winner["model"]["path"])
    return next((each for each in places if any((each / path).exists() for path in paths)), places[-1])


def num_steps(winner: dict[str, Any], examples: int) -> int:
    """Optimiser steps that `winner.yaml` asks for: `run.epochs`, `run.steps`, or those of a trial of the search."""
    run, training = winner.get("run") or {}, winner["training"]
    if run.get("epochs"):
        return max(1, round(float(run["epochs"]) * examples / int(training["effective_batch"])))
    return int(run.get("steps") or training["steps"])


def demonstrations(data: dict[str, Any], tokenizer: Any, base: Path, day: str | None = None) -> Any:
    """The tokenised data set, read, rendered and chosen as in the search.

    `day`: the study's date, which templates print as today. Raises ValueError, naming file and line, for bad rows.
    """
    kept = load_demonstrations(_settings(data), tokenizer, base, day=date.fromisoformat(day) if day else None)
    for note in kept.notes:
        print(f"look at    {note}")
    rows = [_columns(example) for example in kept]
    if not kept.has_weights:
        rows = [{name: column for name, column in row.items() if name != "weights"} for row in rows]
    return Dataset.from_list(rows)


def _settings(data: dict[str, Any]) -> SimpleNamespace:
    """Settings with attributes, those of sources in a list too."""
    path = data["path"]
    if isinstance(path, list):
        path = [SimpleNamespace(**entry) if isinstance(entry, dict) else entry for entry in path]
    return SimpleNamespace(**{**data, "path": path})


def _columns(example: Any) -> dict[str, list[Any]]:
    """Token ids, which of them are learnt, which of those are critical, how often each counts, and what a reference
    says of it."""
    ids, learnt = example.token_ids.long(), example.learnt
    critical = torch.zeros_like(learnt) if example.critical is None else example.critical
    weights = learnt.float() if example.weights is None else example.weights
    labels = ids.masked_fill(~learnt, IGNORE_INDEX)
    found = {"input_ids": ids, "labels": labels, "critical": critical.int(), "weights": weights}
    if example.reference_logprobs is not None:
        found["reference_logprobs"] = example.reference_logprobs
    return {name: column.tolist() for name, column in found.items()}


def collate(rows: list[dict[str, Any]], pad: int = 0) -> dict[str, Tensor]:
    """Sequences padded on the right, where no token with a label can see it: no attention mask is needed."""

    def stack(name: str, fill: int) -> Tensor:
        return pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=fill)

    fills = {"input_ids": pad, "labels": IGNORE_INDEX, "critical": 0, "weights": 0, "reference_logprobs": 0}
    return {name: stack(name, fill) for name, fill in fills.items() if name in rows[0]}


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
