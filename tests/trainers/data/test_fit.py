"""Demonstrations that a model cannot read, or whose answers nothing ends, are refused with the row and the remedy."""

from __future__ import annotations

import json

import pytest
from tokenizer_families import family, tiny_model

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.fit import check_ends, check_fit
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.models.tokens import end_tokens
from qtarget.trainers.settings import DataSettings


@pytest.fixture
def load(tmp_path):
    """Reads demonstrations of completions with a tokenizer."""

    def read(tokenizer, completions, **options):
        rows = ({"prompt": f"what is {number}", "completion": text} for number, text in enumerate(completions))
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_demonstrations(DataSettings(path="train.jsonl", **options), tokenizer, tmp_path)

    return read


def test_an_id_without_a_row_is_refused_with_its_row_and_token(load):
    tokenizer, ends = family("byte_level")
    model = tiny_model(len(tokenizer), ends)
    tokenizer.add_tokens(["<ans>"])
    data = load(tokenizer, ["the sum is 1", " " * 300, "it is <ans>2"], max_length=200)
    with pytest.raises(
        UserError, match=r"line 3 of train.jsonl uses '<ans>', id \d+, of \d+ rows; .*add_tokens"
    ) as told:
        check_fit(data, model, tokenizer)
    assert told.value.field == "model.add_tokens"
    with pytest.raises(UserError, match=r"row in the teacher"):
        check_fit(data, model, tokenizer, field="teacher")
    check_fit(data, tiny_model(len(tokenizer), ends), tokenizer)


def test_a_demonstration_longer_than_the_model_is_refused_with_what_fits(load):
    tokenizer, ends = family("byte_level")
    data = load(tokenizer, ["short", "a " * 40])
    longest = max(example.length for example in data)
    check_fit(data, tiny_model(len(tokenizer), ends, max_position_embeddings=longest), tokenizer)
    small = tiny_model(len(tokenizer), ends, max_position_embeddings=longest - 1)
    with pytest.raises(
        UserError, match=rf"line 2 of train.jsonl has {longest}; set `data.max_length` to {longest} at most"
    ):
        check_fit(data, small, tokenizer)
    kept = load(tokenizer, ["short", "a " * 40], max_length=longest)
    check_fit(kept, small, tokenizer)


ENDLESS = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("chat", "said", "field"),
    [
        (True, "chat template writes no special token", "model.chat_template"),
        (False, "no end of sequence", "data.chat"),
    ],
)
def test_answers_that_nothing_ends_are_refused_unless_a_string_does(load, chat, said, field):
    tokenizer, ends = family("no_end")
    tokenizer.chat_template = ENDLESS
    data = load(tokenizer, ["one", "two"], chat=chat)
    found = end_tokens(tiny_model(len(tokenizer), ends), tokenizer, chat=chat)
    with pytest.raises(UserError, match=said) as told:
        check_ends(data, found, tokenizer, chat=chat, stop=())
    assert told.value.field == field and "evaluation.stop" in str(told.value)
    line = check_ends(data, found, tokenizer, chat=chat, stop=("\n",)).line
    assert line == "no token in 0 of 2 demonstrations, and at the text '\\n'"
    assert check_ends(data, found, tokenizer, chat=chat, stop=None).line.startswith("no token")


def test_an_end_that_the_model_declares_but_nobody_learns_ends_no_answer(load):
    """A configuration's default of 2, or the end of sequence of a base model whose template writes none."""
    tokenizer, _ = family("byte_level")
    tokenizer.chat_template = ENDLESS
    data = load(tokenizer, ["one", "two"])
    with pytest.raises(UserError, match="something must end an answer"):
        check_ends(data, {2, 9}, tokenizer, chat=True, stop=())


def test_where_answers_end_is_said(load):
    tokenizer = family("several_ends")[0]
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|end|>", "{{ '<|end|>' if m.role != 'assistant' or 'x' not in m.content }}"
    )
    data = load(tokenizer, ["one", "xx", "two"])
    ordinary = tokenizer.convert_tokens_to_ids("e")
    found = check_ends(data, {4, 2, 0, ordinary}, tokenizer, chat=True, stop=())
    assert found.line == "'<|end|>' in 2 of 3 demonstrations; generation also stops at '<pad>', '</s>'"
    assert found.notes[0] == "1 of 3 demonstrations teach no end of an answer (first: line 2 of train.jsonl)"
    assert "declares that 'e' ends an answer" in found.notes[1] and len(found.notes) == 2
