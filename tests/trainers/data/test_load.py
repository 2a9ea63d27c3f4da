"""Reading demonstrations: every shape data comes in, and every way it can be wrong."""

from __future__ import annotations

import json

import pytest

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.demonstrations import IGNORE_INDEX
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.settings import DataSettings

CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2+2"},
    {"role": "assistant", "content": "4."},
]


def write(folder, rows, name="data.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def load(folder, tokenizer, rows, **settings):
    path = write(folder, rows)
    return load_demonstrations(DataSettings(path=path, **settings), tokenizer, folder)


def learnt(tokenizer, example):
    return tokenizer.decode(example.token_ids[example.completion])


def given(tokenizer, example):
    return tokenizer.decode(example.token_ids[~example.completion])


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"messages": CONVERSATION}, {}),
        ({"talk": CONVERSATION}, {"messages_column": "talk"}),
        ({"prompt": CONVERSATION[:4], "completion": "4."}, {}),
        ({"prompt": CONVERSATION[:4], "completion": CONVERSATION[4:]}, {}),
        ({"ask": CONVERSATION[:4], "say": "4."}, {"prompt_column": "ask", "completion_column": "say"}),
        ({"messages": [*CONVERSATION, {"role": "user", "content": "thanks"}]}, {}),
    ],
)
def test_every_form_gives_the_same_demonstration(tmp_path, tokenizer, row, settings):
    (example,) = load(tmp_path, tokenizer, [row], **settings)
    assert given(tokenizer, example) == "<s>be brief<e><u>1+1<e><a>2<e><u>2+2<e><a>"
    assert learnt(tokenizer, example) == "4.<e>"


def test_labels_are_the_following_tokens_of_the_completion(tmp_path, tokenizer):
    (example,) = load(tmp_path, tokenizer, [{"prompt": "1+1", "completion": "2"}])
    ids = example.token_ids.tolist()
    assert example.inputs.tolist() == ids[:-1]
    assert example.labels.tolist() == [IGNORE_INDEX] * (len(ids) - 3) + ids[-2:]
    assert example.num_labels == 2


def test_plain_text_needs_no_template_and_ends_the_sequence(tmp_path, tokenizer):
    (example,) = load(tmp_path, tokenizer, [{"prompt": "1+1=", "completion": "2"}], chat=False)
    assert given(tokenizer, example) == "1+1="
    assert learnt(tokenizer, example) == "2<e>"


def test_critical_spans_become_a_mask_of_the_labels(tmp_path, tokenizer):
    rows = [{"prompt": "ab", "completion": "abc 12 xy", "spans": [[4, 6], [8, 9]]}]
    (example,) = load(tmp_path, tokenizer, rows, critical_column="spans")
    assert tokenizer.decode(example.token_ids[example.critical]) == "12y"
    marked = example.labels[example.aligned("critical")]
    assert tokenizer.decode(marked) == "12y"


def test_too_long_and_empty_demonstrations_are_counted(tmp_path, tokenizer):
    rows = [{"prompt": "1", "completion": "2" * length} for length in (1, 30, 5, 40)]
    data = load(tmp_path, tokenizer, rows, max_length=20)
    assert (len(data), data.num_rows, data.num_too_long) == (2, 4, 2)
    assert "2 of 4 demonstrations (2 longer than `max_length`" in data.summary()


def test_max_examples_is_a_choice_by_content(tmp_path, tokenizer):
    rows = [{"prompt": str(n), "completion": str(n)} for n in range(30)]
    some = load(tmp_path, tokenizer, rows, max_examples=7)
    again = load(tmp_path, tokenizer, rows[::-1], max_examples=7)
    assert len(some) == 7
    assert {example.content for example in some} == {example.content for example in again}


def test_fingerprint_depends_on_tokens_and_masks_alone(tmp_path, tokenizer):
    rows = [{"prompt": "12", "completion": "34", "note": "a"}]
    one = load(tmp_path, tokenizer, rows)
    assert one.fingerprint == load(tmp_path, tokenizer, [rows[0] | {"note": "b"}]).fingerprint
    assert one.fingerprint != load(tmp_path, tokenizer, [rows[0] | {"completion": "35"}]).fingerprint
    assert one.fingerprint != load(tmp_path, tokenizer, [rows[0]], chat=False).fingerprint


ROW = {"prompt": "1", "completion": "2"}


@pytest.mark.parametrize(
    ("rows", "settings", "field", "message"),
    [
        ([ROW], {"prompt_column": "question"}, "data.prompt_column", "'question'; its columns are prompt, completion"),
        ([ROW], {"messages_column": "talk"}, "data.messages_column", "no column 'talk'"),
        (
            [{"words": "1"}],
            {},
            "data.prompt_column",
            "its columns are words. Known without a name: messages, conversations",
        ),
        ([ROW], {"critical_column": "spans"}, "data.critical_column", "no column 'spans'"),
        ([ROW], {"messages_column": "m", "prompt_column": "p"}, "data.messages_column", "excludes"),
        ([ROW], {"max_length": 3}, "data.max_length", "all 1 of data.jsonl are longer than max_length=3"),
        (
            [{"prompt": "1", "completion": None}, ROW],
            {},
            "data",
            "`completion` must be text .*line 1 of data.jsonl has null",
        ),
        ([{"prompt": 7, "completion": "2"}], {}, "data", "`prompt` must be text or a list"),
        (
            [{"messages": [{"role": "user", "content": "1"}]}],
            {},
            "data.messages_column",
            "with an assistant message to learn from, but line 1 of data.jsonl",
        ),
        ([ROW | {"s": [[3, 1]]}], {"critical_column": "s"}, "data.critical_column", r"\[\[start, end\], ...\]"),
        ([], {}, "data.path", "is empty"),
        ([ROW], {"split": "test"}, "data.split", "split=test"),
    ],
)
def test_bad_data_is_refused_with_its_place(tmp_path, tokenizer, rows, settings, field, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, tokenizer, rows, **settings)
    assert caught.value.field == field


@pytest.mark.parametrize("path", ["missing.jsonl", "./missing", "/no/where/data.parquet"])
def test_a_missing_file_is_refused_with_where_it_was_looked_for(tmp_path, tokenizer, path):
    with pytest.raises(UserError, match=r"must exist, but .*relative paths start at the folder of the YAML"):
        load_demonstrations(DataSettings(path=path), tokenizer, tmp_path)


def test_a_broken_line_is_refused_with_the_file(tmp_path, tokenizer):
    (tmp_path / "data.jsonl").write_text('{"prompt": "1", "completion": "2"}\n{"prompt": ')
    with pytest.raises(UserError, match=r"line 2 of data.jsonl is not \(Expecting value at character 11\)"):
        load_demonstrations(DataSettings(path="data.jsonl"), tokenizer, tmp_path)


def test_a_tokenizer_without_template_is_refused_with_the_remedy(tmp_path, tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(UserError, match=r"point `model.chat_template` at a file") as caught:
        load(tmp_path, bare, [ROW])
    assert caught.value.field == "model.chat_template"
