"""A study of seconds: a tiny Llama with character tokens learns to answer with the first letter of a word."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

LETTERS = "abcdefgh"


def write_small_study(folder: Path, **changes: Any) -> Path:
    """Model, teacher, data, problems and the study's YAML in `folder`; `changes` replace top-level keys."""
    from tiny_llama import character_tokenizer, tiny_llama

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = character_tokenizer()
    for name, seed in (("model", 1), ("teacher", 2)):
        tiny_llama(seed, len(tokenizer), num_hidden_layers=2, initializer_range=0.1).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    words = _words(120)
    _write(folder / "train.jsonl", ({"prompt": word, "completion": word[0]} for word in words[:80]))
    _write(folder / "problems.jsonl", ({"question": word, "answer": word[0]} for word in words[80:]))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(small_config(**changes), sort_keys=False))
    return path


def small_config(**changes: Any) -> dict[str, Any]:
    """The study as plain data."""
    config = {
        "study": "small",
        "model": {"path": "model"},
        "teacher": {"path": "teacher"},
        "data": {"path": "train.jsonl", "max_length": 64},
        "training": {
            "steps": 8,
            "effective_batch": 8,
            "micro_batch": 8,
            "learning_rate": 0.01,
            "checkpoint_every": 2,
        },
        "space": {"training": {"learning_rate": [0.003, 0.03, "log"]}},
        "baselines": ["sft", "dft"],
        "search": {"trials": 4, "startup_trials": 2, "pruner": "median", "rungs": [0.5], "rung_problems": 8},
        "evaluation": {
            "tasks": [{"path": "problems.jsonl", "kind": "exact"}],
            "problems": 16,
            "max_new_tokens": 3,
        },
        "limits": {"lease_seconds": 5},
    }
    return config | changes


def _words(count: int) -> list[str]:
    generator = random.Random("words of the small study")
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(generator.choice(LETTERS) for _ in range(4))] = None
    return list(words)


def _write(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
