"""What a tokenizer writes by itself, which tokens end an answer, and where added ones start."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizer_families import family, tiny_model
from tokenizers import processors
from transformers import AutoTokenizer

from qtarget.trainers.models.load import load_model, load_tokenizer, model_fingerprint, pad_token_id
from qtarget.trainers.models.tokens import around, end_of_sequence, end_of_turn, end_tokens, settle, stop_appending
from qtarget.trainers.settings import ModelSettings

ENDING = processors.TemplateProcessing(
    single="<s> $A </s> </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
)
POST_PROCESSORS = {
    "template": (ENDING, [1]),
    "after bytes": (processors.Sequence([processors.ByteLevel(trim_offsets=True), ENDING]), [1]),
    "nothing before": (
        processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)]),
        [],
    ),
    "bert": (processors.BertProcessing(("</s>", 2), ("<s>", 1)), [1]),
    "roberta": (processors.RobertaProcessing(("</s>", 2), ("<s>", 1)), [1]),
}


def appending(kind: str = "template"):
    tokenizer = family("byte_level")[0]
    tokenizer.backend_tokenizer.post_processor = POST_PROCESSORS[kind][0]
    return tokenizer


@pytest.mark.parametrize("kind", POST_PROCESSORS)
def test_what_is_appended_is_found_and_stopped_and_what_comes_before_stays(kind, tmp_path):
    tokenizer, before = appending(kind), POST_PROCESSORS[kind][1]
    found = around(tokenizer)
    assert found[0] == before and set(found[1]) == {2}
    text = tokenizer("what is 1", add_special_tokens=False)["input_ids"]
    stop_appending(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert each("what is 1")["input_ids"] == [*before, *text]
    kept = json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"]["processors"]
    assert [part["type"] for part in kept][:-1] == (["ByteLevel"] if kind == "after bytes" else [])


def test_a_tokenizer_that_appends_nothing_stays_as_it_is():
    tokenizer = family("byte_level")[0]
    before = tokenizer.backend_tokenizer.to_str()
    stop_appending(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before and around(tokenizer) == ([], [])


def test_what_is_appended_ends_a_sequence_where_nothing_else_is_declared():
    tokenizer = appending()
    tokenizer.eos_token = None
    assert end_of_sequence(tokenizer) == 2
    assert end_of_sequence(family("no_end")[0]) is None


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ("<|end|>\n", "<|end|>"),
        ("\n-- signed<|end|><s>", "<|end|>"),  # what stands before it is learnt as part of the answer
        ("{{ eos_token }}", "</s>"),
        ("\n\n", None),
        ("<end of turn>", None),  # no token of its own
    ],
)
def test_the_end_of_a_turn_is_the_first_special_token_behind_an_answer(behind, end):
    tokenizer = family("byte_level")[0]
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}" + behind + "{% endfor %}"
    found = end_of_turn(tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == end


def test_all_ends_of_model_tokenizer_and_template_count():
    tokenizer, ends = family("several_ends")
    model = tiny_model(len(tokenizer), ends)
    assert end_tokens(model, tokenizer, chat=False) == {0, 2}
    assert end_tokens(model, tokenizer, chat=True) == {0, 2, 4}


def test_a_template_that_writes_the_end_of_sequence_elsewhere_keeps_it():
    tokenizer = family("byte_level")[0]
    tokenizer.chat_template = (
        "{{ eos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    model = tiny_model(len(tokenizer), 2)
    settled = settle(model, tokenizer, {2, 4}, chat=True)
    assert (settled.eos_token, tokenizer.eos_token) == ("</s>", "</s>")
    assert model.generation_config.eos_token_id == model.config.eos_token_id == [2, 4]


@pytest.fixture
def folder(tmp_path):
    tokenizer, ends = family("byte_level")
    tiny_model(len(tokenizer) + 3, ends, tie_word_embeddings=True).save_pretrained(tmp_path / "padded")
    tiny_model(len(tokenizer), ends).save_pretrained(tmp_path / "full")
    for name in ("padded", "full"):
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


ADDED = ("<ans>", "</ans>", "<think>", "</think>", "<ans>", "<|end|>")
"""Four that are new, one twice, one that is known."""


@pytest.mark.parametrize("name", ["padded", "full"])
def test_added_tokens_are_one_token_and_start_at_the_mean_of_the_others(folder, name):
    settings = ModelSettings(path=name, add_tokens=ADDED)
    plain, grown = (load_tokenizer(each, folder) for each in (ModelSettings(path=name), settings))
    assert len(grown) == len(plain) + 4 and len(grown("<ans>7</ans>", add_special_tokens=False)["input_ids"]) == 3
    assert grown.decode(grown("<ans>7</ans>")["input_ids"], skip_special_tokens=True) == "<ans>7</ans>"
    base, model = load_model(ModelSettings(path=name), folder, "fp32"), load_model(settings, folder, "fp32")
    assert model.config.vocab_size == max(len(plain) + 4, base.config.vocab_size)
    for before, after in (
        (base.get_input_embeddings().weight, model.get_input_embeddings().weight),
        (base.get_output_embeddings().weight, model.get_output_embeddings().weight),
    ):
        assert torch.equal(after[: len(plain)], before[: len(plain)])
        expected = before[: len(plain)].double().mean(0).float().expand(4, -1)
        assert torch.equal(after[len(plain) : len(plain) + 4], expected)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (name == "padded"), "tied as before"
    torch.rand(3)
    assert model_fingerprint(load_model(settings, folder, "fp32")) == model_fingerprint(model)


def test_a_token_of_the_tokenizer_without_a_row_gets_one(folder):
    tokenizer = family("byte_level")[0]
    tokenizer.add_tokens(["<ans>"])
    tokenizer.save_pretrained(folder / "full")
    model = load_model(ModelSettings(path="full", add_tokens=("<ans>",)), folder, "fp32")
    assert model.config.vocab_size == len(tokenizer)
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[-1], rows[:-1].mean(0))


def test_padding_is_a_token_that_the_model_has():
    tokenizer = family("byte_level")[0]
    size = len(tokenizer)
    assert pad_token_id(tokenizer, size) == 0
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert pad_token_id(tokenizer, size) == tokenizer.eos_token_id
    assert pad_token_id(tokenizer, size + 1) == size
