"""Weights and log-probabilities that rows, messages and tokens bring along, and the ways in which they can be wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.batches import collate
from qtarget.trainers.data.demonstrations import Demonstration, Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.loop.packing import pack
from qtarget.trainers.settings import DataSettings

ROW = {"prompt": "1+1", "completion": " 23."}
CHAT = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "23"}]
SEVERAL = [*CHAT, {"role": "user", "content": "4"}, {"role": "assistant", "content": "56"}]
CUT = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content if loop.last or m.role == 'user' else '' }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
"""A template that forgets earlier answers, so that each learnt one is a text of its own."""


def load(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], **settings: Any) -> Demonstrations:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_demonstrations(DataSettings(path="data.jsonl", **settings), tokenizer, folder)


def weights(tokenizer: Any, example: Demonstration) -> list[tuple[str, float]]:
    """Each token of the completion with its weight."""
    given = torch.ones(len(example.token_ids)) if example.weights is None else example.weights
    learnt = example.completion.nonzero().squeeze(1).tolist()
    return [(tokenizer.decode([int(example.token_ids[i])]), round(float(given[i]), 4)) for i in learnt]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0.5, [0.5] * 5),
        (2, [2.0] * 5),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]),
        ([[1, 3, 0.25]], [1, 0.25, 0.25, 1, 1]),
        ([[0, 4, 3], [2, 3, 0.5]], [3, 3, 0.5, 3, 1]),  # the last span that touches a token counts
        ("[[1, 3, 0.25]]", [1, 0.25, 0.25, 1, 1]),  # as tables hold it
        (None, [1] * 5),
        ([], [1] * 5),
        (1, [1] * 5),
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_a_column_weighs_rows_characters_and_tokens(
    tmp_path: Path, tokenizer: Any, value: Any, found: list[float], chat: bool
) -> None:
    data = load(tmp_path, tokenizer, [{**ROW, "how": value}], weight_column="how", chat=chat)
    assert weights(tokenizer, data[0]) == list(zip([" ", "2", "3", ".", "<e>"], found, strict=True))
    assert data.has_weights is (set(found) != {1})
    plain = load(tmp_path, tokenizer, [ROW], chat=chat)
    assert (data.fingerprint == plain.fingerprint) is (not data.has_weights)


def test_messages_weigh_their_answers_and_rows_weigh_messages(tmp_path: Path, tokenizer: Any) -> None:
    said = [SEVERAL[0], {**SEVERAL[1], "weight": 0.5}, SEVERAL[2], {**SEVERAL[3], "weight": 3, "train": True}]
    (example,) = load(tmp_path, tokenizer, [{"messages": said, "w": 2}], learn="all", weight_column="w")
    expected = [("2", 1.0), ("3", 1.0), ("<e>", 1.0), ("5", 6.0), ("6", 6.0), ("<e>", 6.0)]
    assert weights(tokenizer, example) == expected
    (last,) = load(tmp_path, tokenizer, [{"messages": said[2:], "w": [[0, 1, 0.5]]}], weight_column="w")
    assert weights(tokenizer, last) == [("5", 1.5), ("6", 3.0), ("<e>", 3.0)]


def test_answers_that_become_texts_of_their_own_keep_their_weights(tmp_path: Path, tokenizer: Any) -> None:
    forgets = copy.deepcopy(tokenizer)
    forgets.chat_template = CUT
    said = [SEVERAL[0], {**SEVERAL[1], "weight": 0.5}, SEVERAL[2], SEVERAL[3]]
    data = load(tmp_path, forgets, [{"messages": said, "w": 4}], learn="all", weight_column="w")
    assert [weights(tokenizer, example)[0] for example in data] == [("2", 2.0), ("5", 4.0)]
    with pytest.raises(
        UserError, match="numbers for each token need one text a row, but the template makes 2 of line 1"
    ):
        load(tmp_path, forgets, [{"messages": said, "w": [1, 2]}], learn="all", weight_column="w")


def test_a_weight_of_zero_is_no_loss(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{**ROW, "w": [0, 1, 0, 1, 0.5]}, {**ROW, "w": 0}, {**ROW, "w": 1}]
    data = load(tmp_path, tokenizer, rows, weight_column="w")
    assert len(data) == 2 and data.num_without_loss == 1
    assert [example.num_labels for example in data] == [3, 5]
    assert (data[0].labels >= 0).sum() == 3
    for batch in (collate(list(data), [0, 1], 0), pack(list(data), [0, 1], 0)):
        assert batch.flat_weights is not None
        assert batch.flat_weights.tolist() == [1, 1, 0.5, 1, 1, 1, 1, 1]
        assert len(batch.flat_labels) == 8


def test_log_probabilities_of_a_reference_follow_their_tokens(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{**ROW, "r": [-0.5, -1, -1.5, -2, -2.5]}, {"prompt": "3", "completion": "4", "r": [-7, 0]}]
    data = load(tmp_path, tokenizer, rows, reference_logprob_column="r")
    assert data.has_reference_logprobs and not data.has_weights
    for batch in (collate(list(data), [0, 1], 0), pack(list(data), [0, 1], 0)):
        assert batch.flat_reference_logprobs is not None
        assert batch.flat_reference_logprobs.tolist() == [-0.5, -1, -1.5, -2, -2.5, -7, 0]
    other = load(
        tmp_path, tokenizer, [{**rows[0], "r": [-0.5, -1, -1.5, -2, -2]}, rows[1]], reference_logprob_column="r"
    )
    assert other.fingerprint != data.fingerprint
    assert load(tmp_path, tokenizer, rows).fingerprint == load(tmp_path, tokenizer, [ROW, rows[1]]).fingerprint


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({**ROW, "w": -1}, {"weight_column": "w"}, "`w` must be a number from 0 up, a list .* line 1 .* has -1"),
        ({**ROW, "w": True}, {"weight_column": "w"}, "`w` must be a number from 0 up"),
        ({**ROW, "w": "many"}, {"weight_column": "w"}, "`w` must be JSON where it is text"),
        ({**ROW, "w": [[3, 1, 2]]}, {"weight_column": "w"}, "`w` must be a number from 0 up"),
        ({**ROW, "w": [[0, 1]]}, {"weight_column": "w"}, "`w` must be a number from 0 up"),
        (
            {**ROW, "w": [[0, 9, 1]]},
            {"weight_column": "w"},
            "`weight_column` must hold spans within the completion's 4",
        ),
        (
            {**ROW, "w": [1, 2]},
            {"weight_column": "w"},
            "a list of 5 numbers, one a token that is learnt, .* '2 numbers'",
        ),
        (ROW, {"weight_column": "w"}, "`weight_column` must name a column"),
        ({**ROW, "r": [-1, -1]}, {"reference_logprob_column": "r"}, "`reference_logprob_column` must be a list of 5"),
        (
            {**ROW, "r": [0.5] * 5},
            {"reference_logprob_column": "r"},
            "`r` must be a list of log-probabilities, at most 0",
        ),
        ({**ROW, "r": None}, {"reference_logprob_column": "r"}, "`r` must be a list of log-probabilities"),
        ({**ROW, "r": -1.0}, {"reference_logprob_column": "r"}, "`r` must be a list of log-probabilities"),
    ],
)
def test_what_is_no_weight_or_log_probability_is_refused_with_its_row(
    tmp_path: Path, tokenizer: Any, row: dict[str, Any], settings: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, tokenizer, [row], **settings)


def test_spans_need_a_fast_tokenizer(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(UserError, match="spans of characters need a fast tokenizer"):
        load(tmp_path, tokenizer, [{**ROW, "w": [[0, 1, 2]]}], weight_column="w")
    (example,) = load(tmp_path, tokenizer, [{**ROW, "w": 2}], weight_column="w")
    assert weights(tokenizer, example)[0] == (" ", 2.0)
