"""A chat template's date, its errors, and the seam between what is given and what is learnt."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from qtarget.spaces.errors import UserError
from qtarget.trainers.data.demonstrations import Demonstrations
from qtarget.trainers.data.load import load_demonstrations
from qtarget.trainers.data.template import ChatTemplate, dated
from qtarget.trainers.settings import DataSettings

DAY = date(2024, 2, 9)
ASK, SAY = {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}
PLAIN = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def with_template(tokenizer: Any, template: Any) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def load(folder: Path, tokenizer: Any, *rows: dict[str, Any], **settings: Any) -> Demonstrations:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_demonstrations(DataSettings(path="data.jsonl", **settings), tokenizer, folder, day=DAY)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d %B %Y", "%d %b %Y", "%-d.%-m.", "100%% on %A, %H:%M:%S", "%%d", "no form", "%j %y %p"]
)
@pytest.mark.parametrize("before", ["", "\n", "  ", "  {# first #}\n"])
def test_a_template_prints_the_given_day_and_is_otherwise_as_it_was(tokenizer: Any, form: str, before: str) -> None:
    source = before + "{%- if strftime_now is defined %}[{{ strftime_now('" + form + "') }}]{% endif %}\n" + PLAIN
    shown = ChatTemplate(with_template(tokenizer, source), DAY).render([ASK], asking=True, place="here")
    literal = source.replace("strftime_now is defined", "true").replace(
        f"strftime_now('{form}')", repr(DAY.strftime(form))
    )
    expected = with_template(tokenizer, literal).apply_chat_template([ASK], add_generation_prompt=True, tokenize=False)
    assert shown == expected


def test_a_template_without_a_date_is_not_touched() -> None:
    assert dated(PLAIN, DAY) is PLAIN


def test_another_day_is_another_fingerprint_and_the_same_day_the_same(tmp_path: Path, tokenizer: Any) -> None:
    template = with_template(tokenizer, "{{ strftime_now('%d.%m.%Y') }}" + PLAIN)
    rows = [{"messages": [ASK, SAY]}]
    found = load(tmp_path, template, *rows)
    assert tokenizer.decode(found[0].token_ids).startswith("09.02.2024<u>") and found.style.day == DAY
    assert load(tmp_path, template, *rows).fingerprint == found.fingerprint
    settings = DataSettings(path="data.jsonl")
    other = load_demonstrations(settings, template, tmp_path, day=date(2024, 2, 10))
    assert other.fingerprint != found.fingerprint


SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
TURNS = "{% if (messages | length) > 2 %}{{ raise_exception('roles must alternate') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (SYSTEM + PLAIN, r"it refuses line 2 of data.jsonl \(TemplateError: System role not supported\); mend the row"),
        (TURNS + PLAIN, r"it refuses line 2 of data.jsonl \(TemplateError: roles must alternate\)"),
        (PLAIN + "{{ date.today }}", r"it refuses line 1 of data.jsonl \(UndefinedError: 'date' is undefined\)"),
        (PLAIN + "{{ 1 + 'a' }}", r"it refuses line 1 of data.jsonl \(TypeError: "),
        (PLAIN + "{{ messages[9].role }}", r"it refuses line 1 of data.jsonl \(UndefinedError: "),
        (PLAIN + "{{ 1 / 0 }}", r"it refuses line 1 of data.jsonl \(ZeroDivisionError: "),
        (PLAIN + "{% if %}", r"cannot be read \(TemplateSyntaxError: Expected an expression"),
        (PLAIN + "{% foo %}", r"cannot be read \(TemplateSyntaxError: Encountered unknown tag 'foo'"),
        ({"a": PLAIN, "b": PLAIN}, "one named default, but it has a, b; point `model.chat_template` at a file"),
        (PLAIN.replace("<a>", "<b>"), r"starts with its own generation prompt, but for line 1 of data.jsonl"),
    ],
)
def test_whatever_a_template_raises_is_told_with_the_row(
    tmp_path: Path, tokenizer: Any, template: Any, said: str
) -> None:
    rows = [{"messages": [ASK, SAY]}, {"messages": [{"role": "system", "content": "s"}, ASK, SAY]}]
    with pytest.raises(UserError, match=said) as caught:
        load(tmp_path, with_template(tokenizer, template), *rows)
    assert caught.value.field == "model.chat_template"


def test_a_named_template_is_chosen_by_what_a_row_has(tmp_path: Path, tokenizer: Any) -> None:
    named = {"default": PLAIN, "tool_use": "{{ tools | tojson }}" + PLAIN}
    row = {"messages": [ASK, SAY]}
    tool = {"type": "function", "function": {"name": "add"}}
    plain, tools = load(tmp_path, with_template(tokenizer, named), row, {**row, "tools": [tool]})
    assert tokenizer.decode(plain.token_ids) == "<u>1+1<e><a>2<e>" and len(tools.token_ids) > len(plain.token_ids) + 9


def test_arguments_of_rendering_are_no_variables(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="free variables of the chat template, but got `add_generation_prompt`"):
        load(tmp_path, tokenizer, {"messages": [ASK, SAY]}, chat_template_kwargs={"add_generation_prompt": True})


TEXTS = ["Q: what is the sum A: the sum is 3", "a b c", "the sum is 12", "one: two"] * 20


def sentence_pieces(scheme: str) -> PreTrainedTokenizerFast:
    """Words carry the space before them, and a text's first word gets one, as SentencePiece does."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    letters = sorted({letter for text in TEXTS for letter in text})
    inner.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "</s>"], initial_alphabet=letters)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


def old_llama() -> PreTrainedTokenizerFast:
    """The same by a normalizer, as the converted tokenizers of Llama 2 do."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    inner.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "</s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


def byte_level() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize("prompt", ["Q: the sum A: ", "Q: the sum A:", "one:\n", "a b"])
@pytest.mark.parametrize("completion", ["the sum is 3", " the sum", "3"])
@pytest.mark.parametrize(
    "tokenizer",
    [sentence_pieces("first"), sentence_pieces("always"), old_llama(), byte_level()],
    ids=["first", "always", "normalizer", "bytes"],
)
def test_what_is_learnt_follows_what_generation_sees_without_a_space_between(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str
) -> None:
    data = load(tmp_path, tokenizer, {"prompt": prompt, "completion": completion}, chat=False)
    (example,) = data
    start = int(example.completion.int().argmax())
    assert example.token_ids[:start].tolist() == tokenizer(prompt)["input_ids"]
    whole = tokenizer.decode(tokenizer(prompt + completion + "</s>")["input_ids"])
    assert tokenizer.decode(example.token_ids) == whole or any("puts a space between" in note for note in data.notes)
    if tokenizer.backend_tokenizer.normalizer is None:
        assert tokenizer.decode(example.token_ids) == whole, "these tokenizers can always be told"


def test_a_beginning_that_is_written_twice_is_said_and_a_whole_text_keeps_one(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    twice = load(tmp_path, tokenizer, {"prompt": "<s>a", "completion": "b"}, chat=False)
    assert any("begins with <s>, which the tokenizer writes too" in note for note in twice.notes)
    (whole,) = load(tmp_path, tokenizer, {"text": "<s>a b</s>"}, chat=False)
    assert tokenizer.decode(whole.token_ids) == "<s>a b</s>" and whole.num_labels == len(whole.token_ids) - 1
    assert load(tmp_path, tokenizer, {"text": "a b"}, chat=False)[0].content == whole.content


def test_a_seam_that_no_tokens_can_close_is_said(tmp_path: Path) -> None:
    words = ["<pad>", "</s>", "un", "do", "undo"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")
    data = load(tmp_path, tokenizer, {"prompt": "un", "completion": "do"}, chat=False)
    assert tokenizer.convert_ids_to_tokens(data[0].token_ids.tolist()) == ["un", "do", "</s>"]
    (note,) = data.notes
    assert "puts a space between prompt and completion" in note and "line 1 of data.jsonl" in note
