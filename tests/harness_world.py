"""Tasks of lm-evaluation-harness on local files: generated sums with worked examples and a filter, and choices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

GENERATED: dict[str, Any] = {
    "task": "local_sums",
    "dataset_path": "json",
    "training_split": "train",
    "test_split": "test",
    "fewshot_split": "train",
    "num_fewshot": 2,
    "output_type": "generate_until",
    "doc_to_text": "q: {{question}}\na:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n", "q:", "x"], "max_gen_toks": 10, "do_sample": False},
    "filter_list": [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": "([a-z])", "group_select": which}, first]}
        for name, which, first in (("first", 0, {"function": "take_first"}), ("last", -1, {"function": "take_first"}))
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}],
}
COMPARED: dict[str, Any] = {
    "task": "local_choices",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "q: {{question}}\na:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}


def questions(count: int, first: int = 0) -> list[str]:
    return [f"{17 * number % 89} + {31 * number % 97}" for number in range(first, first + count)]


def write_tasks(folder: Path, answers: Sequence[str] = ("f",) * 12) -> Path:
    """A folder with `local_sums`, whose golds are `answers`, `local_choices`, and `local_both`, a group of both."""
    rows = [{"question": each, "answer": answer} for each, answer in zip(questions(len(answers)), answers, strict=True)]
    write_lines(folder / "sums.jsonl", rows)
    write_lines(folder / "shots.jsonl", [{"question": each, "answer": "b"} for each in questions(6, first=50)])
    chosen = [
        {"question": each, "choices": ["a", "be", "0", "cd e"][: 2 + number % 3], "gold": number % 2}
        for number, each in enumerate(questions(12, first=20))
    ]
    write_lines(folder / "choices.jsonl", chosen)
    write_task(folder, GENERATED, train="shots.jsonl", test="sums.jsonl")
    write_task(folder, COMPARED, test="choices.jsonl")
    (folder / "both.yaml").write_text(yaml.safe_dump({"group": "local_both", "task": ["local_sums", "local_choices"]}))
    return folder


def write_task(folder: Path, task: dict[str, Any], **files: str) -> Path:
    """The task's file; its data lie beside it, its cache too."""
    data = {"data_files": files, "cache_dir": str(folder / "cache")}
    path = folder / f"{task['task']}.yaml"
    path.write_text(yaml.safe_dump(task | {"dataset_kwargs": data}))
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
