"""Whatever JSON a row holds, it is learnt from or refused with its line: never a traceback, never a change of text."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from qtarget.spaces.errors import UserError
from qtarget.spaces.identity import derive_seed
from qtarget.trainers.data.files import read_path
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.settings import DataSettings

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab1. \n\ud800é", max_size=6)
KEYS = st.sampled_from(["role", "content", "from", "value", "type", "text", "function", "name", "arguments", "x"])
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
ROLES = st.sampled_from(["user", "assistant", "system", "human", "tool", "judge"]) | PLAIN
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": PLAIN}))
CONTENT = st.text("ab1 ", min_size=1, max_size=5) | PARTS | JSON
MESSAGE = st.fixed_dictionaries(
    {"role": ROLES, "content": CONTENT},
    optional={"tool_calls": JSON, "weight": st.sampled_from([0, 1]) | PLAIN, "reasoning_content": PLAIN, "name": PLAIN},
)
COLUMNS = {
    "messages": st.lists(MESSAGE, max_size=4) | JSON,
    "conversations": st.lists(st.fixed_dictionaries({"from": ROLES, "value": CONTENT}), max_size=4) | JSON,
    "prompt": CONTENT,
    "completion": CONTENT,
    "instruction": CONTENT,
    "input": JSON,
    "output": CONTENT,
    "history": JSON,
    "text": CONTENT,
    "tools": JSON,
    "chat_template_kwargs": JSON,
}
SHAPES = (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"), ("text",))


@st.composite
def rows(draw: Any) -> list[dict[str, Any]]:
    shape = draw(st.sampled_from(SHAPES))
    needed, others = {name: COLUMNS[name] for name in shape}, {n: s for n, s in COLUMNS.items() if n not in shape}
    return list(draw(st.lists(st.fixed_dictionaries(needed, optional=others), min_size=1, max_size=3)))


@pytest.mark.parametrize("learn", ["last", "all"])
@seed(derive_seed("any row") % 2**32)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(rows=rows())
@pytest.mark.slow
def test_a_row_is_learnt_or_refused_with_its_place(tokenizer: Any, learn: Any, rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            data = load_demonstrations(DataSettings(path="data.jsonl", learn=learn), tokenizer, Path(folder))
        except UserError as error:
            assert "data.jsonl" in str(error) or "of its tokens" in str(error), error
            return
    for example in data:
        place = int(example.place.split()[1]) - 1
        assert example.num_labels and 0 <= place < len(rows)


@seed(derive_seed("any text") % 2**32)
@settings(max_examples=60)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_text_comes_through_every_format_character_for_character(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_text(
            "".join(json.dumps({"t": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8"
        )
        (folder / "a.json").write_text(json.dumps([{"t": t} for t in texts]))
        for file in ("a.jsonl", "a.json"):
            assert [row.values["t"] for row in read_path(file, folder, field="f")] == texts
